//! The socket in the data directory: mode 0600, for its owner alone.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::fs::{Mode, OFlags};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::admin::{Admin, BODY_BYTES_MAX, System};
use crate::authority::Door;
use crate::tcp::too_long;

/// Its name in the data directory.
pub const SOCKET_NAME: &str = "admin.sock";

/// Where the socket of a server is, one of whose data directories is `data`.
pub fn socket_path(data: &Path) -> PathBuf {
    data.join(SOCKET_NAME)
}

/// The bound socket. It goes with the value.
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Binds the socket in `data`, whose lock the caller holds: so one that is there already was left
    /// by a process that is gone.
    pub fn bind(data: &Path) -> io::Result<Self> {
        let path = socket_path(data);
        remove(&path)?;
        // A name in a socket address has at most 107 bytes, a path to a data directory may have more;
        // so the directory is named by its descriptor.
        let dir = rustix::fs::open(
            data,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let short = format!("/proc/self/fd/{}/{SOCKET_NAME}", dir.as_raw_fd());
        let listener = UnixListener::bind(&short)?;
        // Until here it was as open as the umask allows, but nobody was answered yet, and the
        // directory is its owner's alone.
        rustix::fs::chmod(&path, Mode::RUSR | Mode::WUSR)?;
        Ok(Self { listener, path })
    }

    /// Serves until `stop` is ready. Requests in flight are dropped then: each of them is one commit,
    /// which happens or does not.
    pub async fn serve<S: System>(self, admin: Admin<S>, stop: impl Future<Output = ()>) {
        /// A person and a few scripts.
        const CONNECTIONS_MAX: usize = 64;
        let room = std::sync::Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut stop = std::pin::pin!(stop);
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = &mut stop => return,
                accepted = accept(&self.listener, &room) => accepted,
                // Those that ended are forgotten.
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, place)) => {
                    let admin = admin.clone();
                    connections.spawn(async move {
                        drive(stream, admin).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the admin socket");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the admin socket");
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a socket holds no data, and a simulated disk has none"
)]
fn remove(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path),
        // Whatever it is, it is not ours: binding will say that the name is taken.
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

async fn accept(
    listener: &UnixListener,
    room: &std::sync::Arc<Semaphore>,
) -> io::Result<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = room.clone().acquire_owned().await;
    let place = place.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn drive<S: System>(stream: UnixStream, admin: Admin<S>) {
    const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
    let service = service_fn(move |request| {
        let admin = admin.clone();
        async move { Ok::<_, std::convert::Infallible>(handle(&admin, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection on the admin socket ended early");
    }
}

async fn handle<S: System>(admin: &Admin<S>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let answer = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => {
            let request = Request::from_parts(head, body.to_bytes());
            admin.answer(Door::Socket, request).await
        }
        Err(error) if error.is::<LengthLimitError>() => too_long(),
        Err(error) => crate::admin::fault(http::StatusCode::BAD_REQUEST, error.to_string()),
    };
    answer.map(|body| Full::new(Bytes::from(body)))
}
