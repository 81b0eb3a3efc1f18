//! mhebpf beside a real Docker engine, and inside a container of it.

mod networks;
mod published;
