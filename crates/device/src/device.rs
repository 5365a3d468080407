//! Opens and makes the directory of a device.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::env::{Env, File, Open, Space};
use base::metrics::{Labels, Report};
use base::{ChunkId, DeviceId};

use crate::store::{self, Context, Threads};
use crate::{Config, Error, Finding, Health, Identity, Metrics, Owner, Referenced, Store};

/// One directory on one disk. Cheap to clone; the directory stays locked until the last is gone.
#[derive(Clone)]
pub struct Device {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    dir: PathBuf,
    identity: Identity,
    reserve_bytes: u64,
    health: Health,
    metrics: Arc<Metrics>,
    store: Store,
    threads: Threads,
}

impl Device {
    /// Who the device in `dir` is; `None` if the directory is missing or was never formatted.
    pub fn inspect(env: &Env, dir: &Path) -> Result<Option<Identity>, Error> {
        Identity::read(&*env.disk, dir)
    }

    /// Makes `dir` a device. It may exist, and hold files that are not ours.
    ///
    /// # Errors
    /// [`Error::Foreign`] if it is one already, or has lost its identity but not its data.
    pub fn format(env: &Env, dir: &Path, identity: &Identity) -> Result<(), Error> {
        let doing = |what: &str| format!("{what} {}", dir.display());
        env.disk
            .create_dir(dir)
            .map_err(|error| Error::io(doing("making"), error))?;
        let _lock = lock(env, dir)?;
        let names = env
            .disk
            .list(dir)
            .map_err(|error| Error::io(doing("listing"), error))?;
        let ours = ["identity", "log", "tree", "segments", "index"];
        if let Some(name) = names.iter().find(|name| ours.contains(&name.as_str())) {
            let dir = dir.display();
            return Err(Error::foreign(format!(
                "{dir} holds {name:?} already: not making a new device of it"
            )));
        }
        identity.write(&*env.disk, dir)
    }

    /// Opens the device in `dir`. Waits for the disk: reads what was written since the last
    /// checkpoint of the index.
    pub fn open(env: Env, dir: &Path, config: Config) -> Result<Self, Error> {
        let identity = Self::inspect(&env, dir)?
            .ok_or_else(|| Error::foreign(format!("{} is not a device", dir.display())))?;
        let lock = lock(&env, dir)?;
        let space = env
            .disk
            .space(dir)
            .map_err(|error| Error::io(format!("asking {} for space", dir.display()), error))?;
        let settings = config.settle(space.total_bytes)?;
        let reserve_bytes = settings.reserve_bytes;
        let health = Health::new(identity.device);
        let metrics = Arc::<Metrics>::default();
        let (store, threads) = Store::open(Context {
            env: env.clone(),
            device: identity.device,
            dir: dir.to_owned(),
            settings,
            health: health.clone(),
            metrics: metrics.clone(),
            lock,
        })?;
        Ok(Self {
            inner: Arc::new(Inner {
                env,
                dir: dir.to_owned(),
                identity,
                reserve_bytes,
                health,
                metrics,
                store,
                threads,
            }),
        })
    }

    pub fn id(&self) -> DeviceId {
        self.inner.identity.device
    }

    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    pub fn env(&self) -> &Env {
        &self.inner.env
    }

    pub fn health(&self) -> &Health {
        &self.inner.health
    }

    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// How many bytes of chunks the device still takes: what is free above the reserve, and what
    /// its open segment has.
    pub fn free_bytes(&self) -> Result<u64, Error> {
        let above = self
            .space()?
            .free_bytes
            .saturating_sub(self.reserve_bytes());
        Ok(above + self.store().room_left())
    }

    /// The space of the file system.
    pub fn space(&self) -> Result<Space, Error> {
        let dir = self.dir();
        let space = self.inner.env.disk.space(dir);
        space.map_err(|error| Error::io(format!("asking {} for space", dir.display()), error))
    }

    /// New chunks are refused when less than this would be left.
    pub fn reserve_bytes(&self) -> u64 {
        self.inner.reserve_bytes
    }

    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Starts compaction and scrubbing. The scrubber asks `referenced` about chunks that are older
    /// than [`Config::leftover_age`], and deletes those that are clearly not; the future runs on
    /// the calling task's runtime. Call it once, when the shards can answer.
    pub fn start_jobs<F, R>(&self, referenced: F) -> Result<(), Error>
    where
        F: Fn(ChunkId, Owner) -> R + Send + 'static,
        R: Future<Output = Referenced> + Send,
    {
        /// A shard that takes longer has other worries.
        const ANSWER_MAX: Duration = Duration::from_secs(10);
        let runtime = tokio::runtime::Handle::current();
        let stopping = self.inner.threads.stopping();
        self.inner.threads.start_jobs(move |id, owner| {
            let (answer, mut stopping) = (referenced(id, owner), stopping.clone());
            runtime.block_on(async {
                tokio::select! {
                    answer = tokio::time::timeout(ANSWER_MAX, answer) => {
                        answer.unwrap_or(Referenced::Unknown)
                    }
                    _ = stopping.wait_for(|stopping| *stopping) => Referenced::Unknown,
                }
            })
        })
    }

    /// Pauses compaction and scrubbing, or lets them go on.
    pub fn pause_jobs(&self, paused: bool) {
        self.inner.threads.pause_jobs(paused);
    }

    /// Tells `to` the device's numbers.
    pub fn report(&self, to: &mut dyn Report) {
        let device = self.id().to_string();
        let labels: Labels<'_> = &[("device", &device)];
        let mut gauge = |name: &str, help: &str, value: u64| {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            to.gauge(&format!("martlet_device_{name}"), help, labels, value);
        };
        let usage = self.store().usage();
        gauge("chunks", "Chunks on the device.", usage.chunks);
        gauge(
            "live_bytes",
            "Bytes of the records of chunks.",
            usage.live_bytes,
        );
        gauge(
            "dead_bytes",
            "Bytes that deleted chunks still occupy.",
            usage.dead_bytes,
        );
        gauge("segments", "Segment files.", usage.segments);
        // A file system that cannot be asked has no numbers, and its device will soon say why.
        if let Ok(space) = self.space() {
            gauge(
                "free_bytes",
                "Free bytes of the file system.",
                space.free_bytes,
            );
            gauge("total_bytes", "Size of the file system.", space.total_bytes);
        }
        gauge(
            "state",
            "0 healthy, 1 read-only, 2 failed.",
            self.health().state() as u64,
        );
        self.inner.metrics.report(to, labels);
    }

    /// Stops what runs in the background, finishes the writes that were begun, and writes the
    /// index back so that the next start has nothing to recover. Writes after this fail with
    /// [`Error::Closed`].
    pub async fn close(&self) -> Result<(), Error> {
        let inner = self.inner.clone();
        let closed = tokio::task::spawn_blocking(move || inner.threads.close());
        closed.await.unwrap_or(Err(Error::Closed))
    }
}

/// A device that nobody has open, for checks that change nothing. Holds its lock.
pub struct Offline {
    env: Env,
    dir: PathBuf,
    identity: Identity,
    _lock: Arc<dyn File>,
}

impl Offline {
    /// # Errors
    /// [`Error::Locked`] if a server has it open.
    pub fn open(env: Env, dir: &Path) -> Result<Self, Error> {
        let identity = Device::inspect(&env, dir)?
            .ok_or_else(|| Error::foreign(format!("{} is not a device", dir.display())))?;
        let lock = lock(&env, dir)?;
        Ok(Self {
            env,
            dir: dir.to_owned(),
            identity,
            _lock: lock,
        })
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Reads every record and tells `each` about it, and about what is damaged. Waits for the disk.
    pub fn verify(&self, each: &mut dyn FnMut(Finding)) -> Result<(), Error> {
        store::verify(&self.env, &self.dir, self.identity.device, each)
    }
}

fn lock(env: &Env, dir: &Path) -> Result<Arc<dyn File>, Error> {
    let path = dir.join("lock");
    let lock = || {
        let file = env.disk.open(&path, Open::Write)?;
        Ok((file.try_lock()?, file))
    };
    match lock().map_err(|error| Error::io(format!("locking {}", path.display()), error))? {
        (true, file) => Ok(file),
        (false, _) => Err(Error::Locked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            cluster: 1,
            device: DeviceId(2),
            shards: 4,
            created: base::Timestamp::from_secs(1),
        }
    }

    #[test]
    fn a_directory_is_formatted_once_and_opened_by_one() {
        let env = Env::real();
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("d1");
        assert!(Device::inspect(&env, &dir).unwrap().is_none());
        assert!(matches!(
            Device::open(env.clone(), &dir, Config::default()),
            Err(Error::Foreign(_))
        ));

        Device::format(&env, &dir, &identity()).unwrap();
        assert_eq!(Device::inspect(&env, &dir).unwrap(), Some(identity()));
        assert!(matches!(
            Device::format(&env, &dir, &identity()),
            Err(Error::Foreign(_))
        ));

        let device = Device::open(env.clone(), &dir, Config::default()).unwrap();
        assert_eq!(device.id(), DeviceId(2));
        assert!(matches!(
            Device::open(env.clone(), &dir, Config::default()),
            Err(Error::Locked)
        ));
        drop(device);
        Device::open(env, &dir, Config::default()).unwrap();
    }

    #[test]
    fn data_without_identity_is_left_alone() {
        let env = Env::real();
        let dir = tempfile::tempdir().unwrap();
        env.disk.create_dir(&dir.path().join("segments")).unwrap();
        let refused = Device::format(&env, dir.path(), &identity());
        assert!(matches!(refused, Err(Error::Foreign(_))), "{refused:?}");
    }
}
