//! The BPF maps, and the tables that the decision sees in them.
//!
//! The sizes are defaults: the daemon sets those that depend on the host when it loads the programs.

use core::{arch::asm, cell::UnsafeCell, ptr};

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, PerCpuArray, PerCpuHashMap, RingBuf, lpm_trie::Key},
};
use mhebpf_ebpf::{
    AddressTables, CounterKey, DIRECT_COUNTS as DIRECT_COUNTS_LENGTH, DIRECT_IFACES, Filter, FurtherOwnerKey,
    HIGH_IFACES, HOPS as HOPS_LENGTH, Iface, Ipv4, Ipv6, LOST, Neighbour, NextHopKey, NextHops, Owners,
    OwnersKey, Sample, Sampler, State, Tables,
    filter::{Bit, WORDS},
};

/// Interfaces, by ifindex where that is below [`DIRECT_IFACES`]: the kernel inlines an array's lookup. The others have
/// the slots behind.
#[map]
static IFACES: Array<Iface> = Array::with_max_entries(DIRECT_IFACES + HIGH_IFACES, 0);

/// The slots of interfaces with a high ifindex: on a host with many containers indices grow without bound.
///
/// The slot and not the interface: the verifier would follow all that comes after once for each map that an interface
/// can be from.
#[map]
static IFACE_SLOTS: HashMap<u32, u32> = HashMap::with_max_entries(HIGH_IFACES, BPF_F_NO_PREALLOC);

/// Which addresses are surely not in the tables of owners. The daemon writes it as a whole.
///
/// A global and not an element of an array: its address is a constant in the programs, and there is no lookup with a key
/// and registers to save.
#[unsafe(link_section = ".bss.filter")]
#[unsafe(no_mangle)]
static FILTER: Global<Filter> = Global(UnsafeCell::new([0; WORDS]));

/// The epoch of all tables that a decision is made from. It is odd while the daemon writes them, and 0 before that.
#[unsafe(link_section = ".bss.epoch")]
#[unsafe(no_mangle)]
static EPOCH: Global<u32> = Global(UnsafeCell::new(0));

/// What the daemon writes and programs read.
#[repr(transparent)]
struct Global<T>(UnsafeCell<T>);

// SAFETY: programs only read it, one word at a time.
unsafe impl<T> Sync for Global<T> {}

/// The owners of each local IPv4 address.
#[map]
static OWNERS: HashMap<OwnersKey<Ipv4>, Owners> = HashMap::with_max_entries(131_072, BPF_F_NO_PREALLOC);

/// The owners of each local IPv6 address.
#[map]
static OWNERS6: HashMap<OwnersKey<Ipv6>, Owners> = HashMap::with_max_entries(131_072, BPF_F_NO_PREALLOC);

/// The owners of IPv4 prefixes: local routes and what the configuration allows. It takes memory for
/// what is in it only, and has single addresses for which [`OWNERS`] has no room.
#[map]
static PREFIXES: LpmTrie<OwnersKey<Ipv4>, Owners> = LpmTrie::with_max_entries(16_777_216, BPF_F_NO_PREALLOC);

/// The owners of IPv6 prefixes.
#[map]
static PREFIXES6: LpmTrie<OwnersKey<Ipv6>, Owners> = LpmTrie::with_max_entries(16_777_216, BPF_F_NO_PREALLOC);

/// Owners for which the tables above have no room.
#[map]
static FURTHER_OWNERS: HashMap<FurtherOwnerKey, u8> = HashMap::with_max_entries(131_072, BPF_F_NO_PREALLOC);

/// Next hops by owner and IPv4 destination. It takes memory for what is in it only.
#[map]
static NEXT_HOPS: LpmTrie<NextHopKey<Ipv4>, NextHops> =
    LpmTrie::with_max_entries(16_777_216, BPF_F_NO_PREALLOC);

/// Next hops by owner and IPv6 destination.
#[map]
static NEXT_HOPS6: LpmTrie<NextHopKey<Ipv6>, NextHops> =
    LpmTrie::with_max_entries(16_777_216, BPF_F_NO_PREALLOC);

/// The neighbours that next hops are, of both families.
#[map]
static HOPS: Array<Neighbour> = Array::with_max_entries(HOPS_LENGTH, 0);

/// Packets that did not simply pass.
#[map]
static COUNTERS: PerCpuHashMap<CounterKey, u64> = PerCpuHashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Counts that are found without hashing, by [`CounterKey::direct`], and [`LOST`].
#[map]
static DIRECT_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(DIRECT_COUNTS_LENGTH, 0);

/// What the daemon has last noted, for those who look when it is gone. The programs don't.
#[map]
static STATE: Array<State> = Array::with_max_entries(1, 0);

/// How many packets each CPU may sample in a second. None where nobody watches.
#[map]
static SAMPLE_RATE: Array<u32> = Array::with_max_entries(1, 0);

/// What each CPU keeps to limit its samples. Programs of one direction and CPU do not interrupt each other.
#[map]
static SAMPLERS: PerCpuArray<Sampler> = PerCpuArray::with_max_entries(DIRECTIONS, 0);

/// Samples on their way to those who watch.
#[map]
static SAMPLES: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// How many directions there are, each with a sampler of its own.
const DIRECTIONS: u32 = 2;

/// The maps as [`Tables`].
pub(super) struct BpfTables;

impl BpfTables {
    /// The interface with this index, for as long as the program runs.
    #[inline(always)]
    pub(super) fn find(&self, ifindex: u32) -> Option<&'static Iface> {
        let slot = if ifindex < DIRECT_IFACES {
            ifindex
        } else {
            // SAFETY: an entry lives until the program ends (RCU), and is replaced as a whole.
            *unsafe { IFACE_SLOTS.get(ifindex) }?
        };
        // SAFETY: entries of arrays live as long as the program. Its fields may change meanwhile; each is read once,
        // and any mixture of old and new is a valid `Iface`: of blocks there is none, since the daemon changes them in two steps.
        IFACES.get_ptr(slot).map(|iface| unsafe { &*iface })
    }
}

impl Tables for BpfTables {
    #[inline(always)]
    fn iface(&self, ifindex: u32) -> Option<&Iface> {
        self.find(ifindex)
    }

    #[inline(always)]
    fn may_be_local(&self, bit: Bit) -> bool {
        // SAFETY: the place is within the filter. The daemon may write the word meanwhile; it is read once.
        bit.is_set_in(unsafe { ptr::read_volatile(FILTER.0.get().cast::<u64>().add(bit.word())) })
    }

    #[inline(always)]
    fn is_further_owner(&self, key: &FurtherOwnerKey) -> bool {
        FURTHER_OWNERS.get_ptr(key).is_some()
    }
}

/// The epoch of the tables, unless they are being written.
#[inline(always)]
pub(super) fn epoch() -> Option<u32> {
    // SAFETY: a valid pointer. Volatile: the daemon changes it.
    let epoch = unsafe { ptr::read_volatile(EPOCH.0.get()) };
    // What comes of the tables is read after this: the compiler might do it before.
    // SAFETY: no instruction at all.
    unsafe { asm!("", options(nostack)) };
    (epoch != 0 && epoch & 1 == 0).then_some(epoch)
}

/// The length of an address in bits.
const fn bits<A>() -> u32 {
    8 * size_of::<A>() as u32
}

macro_rules! address_tables {
    ($address:ty, $owners:ident, $prefixes:ident, $next_hops:ident) => {
        impl AddressTables<$address> for BpfTables {
            #[inline(always)]
            fn owners(&self, key: &OwnersKey<$address>) -> Option<&Owners> {
                // SAFETY: as above; user space replaces values as a whole.
                unsafe { $owners.get(key) }
            }

            #[inline(always)]
            fn owners_by_prefix(&self, key: &OwnersKey<$address>) -> Option<&Owners> {
                $prefixes.get(Key::new(OwnersKey::<$address>::DOMAIN_BITS + bits::<$address>(), *key))
            }

            #[inline(always)]
            fn next_hop(&self, owner: u32, destination: $address, flow: u32) -> Option<&Neighbour> {
                let length = NextHopKey::<$address>::OWNER_BITS + bits::<$address>();
                let next_hops = $next_hops.get(Key::new(length, NextHopKey { owner, destination }))?;
                // SAFETY: an element of an array lives as long as the program. The daemon writes it before there are next
                // hops that name it, and for others not before they are gone.
                HOPS.get_ptr(next_hops.place(flow)).map(|hop| unsafe { &*hop })
            }
        }
    };
}

address_tables!(Ipv4, OWNERS, PREFIXES, NEXT_HOPS);
address_tables!(Ipv6, OWNERS6, PREFIXES6, NEXT_HOPS6);

/// Adds one to a counter of this CPU.
#[inline(always)]
pub(super) fn count(key: &CounterKey) {
    let place = match key.direct() {
        Some(place) => place,
        None => match COUNTERS.get_ptr_mut(key) {
            Some(counter) => return add_one(counter),
            None if COUNTERS.insert(key, 1, 0).is_ok() => return,
            // A full table loses counts, never packets.
            None => LOST,
        },
    };
    if let Some(counter) = DIRECT_COUNTS.get_ptr_mut(place) {
        add_one(counter);
    }
}

#[inline(always)]
fn add_one(counter: *mut u64) {
    // SAFETY: the slot belongs to this CPU, and classifiers of one CPU and direction do not interrupt
    // each other; where an egress program interrupts another (a softirq), a count can be lost, which is
    // worth less than an atomic here.
    unsafe { ptr::write(counter, ptr::read(counter) + 1) };
}

/// The sampler of this CPU and direction, if somebody watches and the rate admits one more.
#[inline(always)]
pub(super) fn sampler(direction: u8, now: impl FnOnce() -> u64) -> Option<&'static mut Sampler> {
    let rate = *SAMPLE_RATE.get(0)?;
    if rate == 0 {
        return None;
    }
    // SAFETY: it is this CPU's and this direction's, and nothing else that runs uses it meanwhile.
    let sampler = unsafe { &mut *SAMPLERS.get_ptr_mut(direction.into())? };
    sampler.admits(now(), rate).then_some(sampler)
}

/// Sends a sample to those who watch.
#[inline(always)]
pub(super) fn send(sampler: &mut Sampler) {
    if SAMPLES.output::<Sample>(&sampler.sample, 0).is_err() {
        sampler.suppressed += 1;
    }
}
