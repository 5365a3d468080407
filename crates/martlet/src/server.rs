//! `martlet server`: opens the layers from below to above, serves, and closes them from above to
//! below.

#[cfg(feature = "canary")]
mod canary;
pub(crate) mod devices;
mod first_start;
mod greeting;
mod layers;
mod limits;
mod node;
mod numbers;
mod patience;
mod settings;
mod stop;
mod system;

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use admin::{Admin, Socket};
use anyhow::Context as _;
use base::env::Env;
use tokio::net::{TcpListener, TcpSocket};

use crate::cli::ServerArgs;
use crate::config::{Config, Sources};
use crate::logging;
use first_start::Made;
use greeting::{First, Greeting};
use layers::Layers;
use patience::Patience;
use stop::{Signals, Stop};
use system::System;

/// Why the server is not running. What the process ends with follows from the kind.
enum Failure {
    Settings(anyhow::Error),
    Data(anyhow::Error),
    Address(anyhow::Error),
    Fault(anyhow::Error),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Fault(_) => 1,
            Self::Settings(_) => 2,
            Self::Data(_) => 3,
            Self::Address(_) => 4,
        })
    }

    fn error(&self) -> &anyhow::Error {
        match self {
            Self::Settings(error)
            | Self::Data(error)
            | Self::Address(error)
            | Self::Fault(error) => error,
        }
    }
}

pub(crate) fn run(args: ServerArgs) -> ExitCode {
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("martlet: {:#}", failure.error());
            failure.exit_code()
        }
    }
}

fn start(args: ServerArgs) -> Result<(), Failure> {
    let config = settings(args).map_err(Failure::Settings)?;
    let filter = logging::filter(&config.log).map_err(Failure::Settings)?;
    logging::start(filter, &config.log_format);
    limits::raise_open_files(config.connections_max);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // Writes end on threads of their own, and what they wake must not wait for dozens of others.
        .global_queue_interval(1)
        .thread_name("martlet")
        .build()
        .map_err(|error| Failure::Fault(error.into()))?;
    runtime.block_on(serve(&config))
}

fn settings(args: ServerArgs) -> anyhow::Result<Config> {
    let file = match args.config {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("reading {}", path.display()))?;
            Some((path, text))
        }
    };
    let environment = std::env::vars_os();
    // A variable that is not UTF-8 is none of ours, by its name or by its value.
    let environment = environment
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let sources = Sources {
        file,
        environment: environment.collect(),
        flags: args.flags,
    };
    Ok(Config::resolve(&sources)?)
}

async fn serve(config: &Config) -> Result<(), Failure> {
    let env = Env::real();
    #[cfg(feature = "canary")]
    let env = canary::env(env);
    let mut signals = Signals::listen().map_err(|error| Failure::Fault(error.into()))?;
    // Taken before anything on disk is touched, and listened on when all is ready.
    let mut patience = Patience::new();
    let clients = patience.get(|| bind(config.listen)).await;
    let clients = clients.map_err(Failure::Address)?;
    let admins = patience.get(|| config.admin_listen.map(bind).transpose());
    let admins = admins.await.map_err(Failure::Address)?;

    let nodes = patience.get(|| config.node_listen.map(bind).transpose());
    let nodes = nodes.await.map_err(Failure::Address)?;
    let nodes = nodes.map(listen).transpose().map_err(Failure::Address)?;
    let node_port = nodes.map(|(listener, _)| listener);
    let layers = Layers::open(&env, config, node_port, &mut patience).await;
    let layers = layers.map_err(Failure::Data)?;
    let ready = async {
        let first = first_administrator(&env, &layers, config).await?;
        let swift = swift(&env, &layers, config).await?;
        Ok::<_, anyhow::Error>((first, swift))
    };
    let (first, swift) = tokio::select! {
        ready = ready => ready.map_err(Failure::Data)?,
        signal = signals.next() => {
            tracing::info!(signal, "stopping before the cluster could be reached");
            layers.close().await;
            return Ok(());
        }
    };
    let socket = Socket::bind(&config.data[0]).context("making the admin socket");
    let socket = socket.map_err(Failure::Data)?;
    let (clients, address) = listen(clients).map_err(Failure::Address)?;
    let admins = admins.map(listen).transpose().map_err(Failure::Address)?;

    let swift = gateway::Server::new(config.gateway(), env.clone(), swift);
    let system = System::new(&env, &layers, swift.clone());
    let admin = Admin::new(env.clone(), layers.namespace.clone(), system);
    let admin_tcp = gateway::Server::new(config.admin_gateway(), env.clone(), admin.clone());

    let admin_address = admins.as_ref().map(|(_, address)| *address);
    greet(config, address, admin_address, first.as_ref());
    let stop = Stop::new();
    let serving = async {
        let admin_tcp = async {
            if let Some((listener, _)) = admins {
                admin_tcp.serve(listener, stop.told()).await;
            }
        };
        tokio::join!(
            swift.serve(clients, stop.told()),
            admin_tcp,
            socket.serve(admin, stop.told()),
        );
    };
    until_stopped(serving, &stop, &mut signals).await;
    // Whoever still holds a layer keeps it from closing.
    drop((swift, admin_tcp));
    layers.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// The first administrator, made where the cluster began.
async fn first_administrator(
    env: &Env,
    layers: &Layers,
    config: &Config,
) -> anyhow::Result<Option<Made>> {
    let joined = |node: &node::Node| node.id != base::NodeId::FIRST;
    if layers.node.as_ref().is_some_and(joined) {
        return Ok(None);
    }
    until_available(async || {
        first_start::administrator(env, &layers.namespace, &config.data[0]).await
    })
    .await
}

async fn swift(env: &Env, layers: &Layers, config: &Config) -> anyhow::Result<swift::Swift> {
    until_available(async || {
        let swift = swift::Swift::new(layers.namespace.clone(), env.clone(), config.swift());
        Ok(swift.await?)
    })
    .await
}

/// Tries again as long as the shards have no leaders, or lose them: the other nodes may not be there yet. What is
/// tried may be repeated, so it does not matter what became of an attempt.
async fn until_available<T>(
    mut attempt: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(200);
    let mut is_told = false;
    loop {
        let error = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        use namespace::Error::{Unavailable, Unknown};
        let cause = error.downcast_ref::<namespace::Error>();
        if !matches!(cause, Some(Unavailable { .. } | Unknown)) {
            return Err(error);
        }
        if !std::mem::replace(&mut is_told, true) {
            tracing::warn!(error = format!("{error:#}"), "waiting for the other nodes");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Serves until the first signal and then until all requests have ended, or the second signal.
async fn until_stopped(serving: impl Future<Output = ()>, stop: &Stop, signals: &mut Signals) {
    let mut serving = std::pin::pin!(serving);
    let signal = tokio::select! {
        () = &mut serving => return,
        signal = signals.next() => signal,
    };
    tracing::info!(signal, "stopping: requests in flight may end");
    stop.now();
    tokio::select! {
        () = &mut serving => {}
        signal = signals.next() => tracing::warn!(signal, "stopping at once"),
    }
}

/// Takes an address without listening on it yet.
fn bind(address: SocketAddr) -> anyhow::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let bind = |socket: TcpSocket| {
        // Otherwise a server that was just stopped keeps its address for a minute.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok::<_, std::io::Error>(socket)
    };
    socket
        .and_then(bind)
        .with_context(|| format!("cannot listen on {address}"))
}

/// Listens on an address, and says which it is if any port would do.
fn listen(socket: TcpSocket) -> anyhow::Result<(TcpListener, SocketAddr)> {
    /// Connections that the kernel holds until we take them.
    const BACKLOG: u32 = 1024;
    let address = socket.local_addr()?;
    let listener = socket.listen(BACKLOG);
    let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
    Ok((listener, address))
}

/// Says on standard output where the server is, and the first time what to type next.
fn greet(
    config: &Config,
    listen: SocketAddr,
    admin_listen: Option<SocketAddr>,
    made: Option<&Made>,
) {
    let admin = admin_listen.map(tracing::field::display);
    tracing::info!(%listen, admin_listen = admin, "serving");
    for address in [Some(listen), admin_listen].into_iter().flatten() {
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "plain HTTP beyond this machine: put a TLS terminator in front");
        }
    }
    // Set by systemd where standard output is the journal, which keeps what it is told.
    let is_kept = std::env::var_os("JOURNAL_STREAM").is_some();
    let first = made.map(|made| First {
        user: &made.user,
        password: &made.password,
        file: &made.file,
    });
    let greeting = Greeting {
        listen,
        admin_listen,
        data: &config.data,
        first: first.filter(|_| !is_kept),
    };
    let mut out = std::io::stdout().lock();
    // Nobody may be there to read it.
    let _ = out.write_all(greeting.text().as_bytes());
    let _ = out.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_start_outlives_the_leaders_of_its_shards() {
        let retry_in = std::time::Duration::from_millis(200);
        let mut answers = vec![
            Err(namespace::Error::Damaged("a row".into())),
            Ok(3),
            Err(namespace::Error::Unknown),
            Err(namespace::Error::Unavailable { retry_in }),
        ];
        let mut attempt = async || Ok(answers.pop().expect("one answer more")?);
        assert_eq!(until_available(&mut attempt).await.unwrap(), 3);
        assert!(until_available(&mut attempt).await.is_err());
    }
}
