//! Opens and makes the directory of a device.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::DeviceId;
use base::env::{Env, File, Open, Space};

use crate::store::{Context, Threads};
use crate::{Config, Error, Health, Identity, Metrics, Store};

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
            total_bytes: space.total_bytes,
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

    /// Stops what runs in the background, finishes the writes that were begun, and writes the
    /// index back so that the next start has nothing to recover. Writes after this fail with
    /// [`Error::Closed`].
    pub async fn close(&self) -> Result<(), Error> {
        let inner = self.inner.clone();
        let closed = tokio::task::spawn_blocking(move || inner.threads.close());
        closed.await.unwrap_or(Err(Error::Closed))
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
