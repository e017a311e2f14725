//! The program `eventstream`: what it is told on the command line, and nothing else.
use clap::{Parser, Subcommand};
use eventstream_server::{Failure, migrate, serve, settings::Settings};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "eventstream", version, about = "REST and live streams over the event store inside PostgreSQL")]
struct Arguments {
    /// The configuration file (TOML); what it may hold stands in docs/run-the-server.md. EVENTSTREAM_CONFIG names it, too.
    #[arg(long, env = "EVENTSTREAM_CONFIG", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Serve REST and live streams until SIGTERM or Ctrl-C.
    Serve,
    /// Make or upgrade the schema eventstream_server, as the role that the configuration names; by a superuser.
    Migrate {
        /// Only say which steps would be taken.
        #[arg(long)]
        dry_run: bool,
    },
    /// Print the description of the REST interface (OpenAPI 3.1, JSON).
    Openapi,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("eventstream: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let settings = Settings::load(arguments.config.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::Runtime)?;
    runtime.block_on(async {
        match arguments.what {
            What::Serve => serve::serve(settings).await,
            What::Migrate { dry_run } => migrate::migrate(&settings, dry_run).await,
            What::Openapi => {
                println!("{}", eventstream_server::openapi::document()?);
                Ok(())
            }
        }
    })
}
