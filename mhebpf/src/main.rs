//! The command `mhebpf`.

use std::process::ExitCode;

use clap::Parser as _;
use mhebpf::{
    audit,
    cli::{self, Cli, Command, LogFormat},
    config::Config,
    daemon, explain, logging, monitor, routes, status, unload,
    usage::UsageError,
};
use tracing_subscriber::EnvFilter;

/// Exit status for a command line that can't be carried out; clap uses the same.
const USAGE: u8 = 2;
/// Exit status of an audit that found something.
const FINDINGS: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging(&cli);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            logging::say(&format!("error: starting the runtime: {error}\n"));
            logging::flush();
            return ExitCode::FAILURE;
        }
    };
    let result = match cli.command {
        Command::Run(options) => runtime.block_on(daemon::run(&options)).map(|()| ExitCode::SUCCESS),
        Command::Audit(options) => runtime.block_on(audit::run(&options)).map(|outcome| match outcome {
            audit::Outcome::Clean => ExitCode::SUCCESS,
            audit::Outcome::Findings => ExitCode::from(FINDINGS),
        }),
        Command::Explain(options) => runtime.block_on(explain::run(&options)).map(|()| ExitCode::SUCCESS),
        Command::Status(options) => runtime.block_on(status::run(&options)).map(|()| ExitCode::SUCCESS),
        Command::Monitor(options) => runtime.block_on(monitor::run(&options)).map(|()| ExitCode::SUCCESS),
        Command::Routes(options) => routes::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Unload(options) => runtime.block_on(unload::run(&options)).map(|()| ExitCode::SUCCESS),
        Command::Man { command } => cli::manual(command.as_deref()).map(|()| ExitCode::SUCCESS),
        Command::Completions { shell } => cli::completions(shell).map(|()| ExitCode::SUCCESS),
    };
    let status = match result {
        Ok(status) => status,
        Err(error) => {
            logging::say(&format!("error: {error:#}\n"));
            if error.is::<UsageError>() { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
        }
    };
    logging::flush();
    status
}

fn start_logging(cli: &Cli) {
    // The log begins before the daemon does. A mistake in the file is the daemon's to report, which reads it again.
    let config = match &cli.command {
        Command::Run(options) => {
            logging::begin();
            options.config_source().read().ok().flatten().unwrap_or_default()
        }
        _ => Config::default(),
    };
    let said = Some(cli.verbose).filter(|verbose| *verbose > 0);
    let level = match said.or(config.verbose).unwrap_or_default() {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    // Attributes of kernels newer than the library are no concern of an operator.
    let default = format!("warn,mhebpf={level},netlink_packet_route=error");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt()
        // A log that can't be written must not end what is enforced; the default is to say so with a macro that panics then.
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_writer(|| logging::Writer)
        .with_ansi(
            std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none(),
        )
        .with_target(false);
    match cli.log_format.or(config.log_format).unwrap_or(LogFormat::Human) {
        LogFormat::Human => subscriber.init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
}
