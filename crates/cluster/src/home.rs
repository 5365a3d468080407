//! What a node keeps in each of its data directories, since any disk may die: who it is, and the newest map that
//! it knows.
//!
//! Files are written whole: beside their place, synced, renamed, directory synced. So one that is there is
//! complete, whenever the power went. Bytes are in docs/formats/node.md.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use base::DeviceId;
use base::checksum::crc32c;
use base::env::{Env, Open};
use map::Map;
use rpc::{BadCredentials, Credentials, NodeKey};
use serde::{Deserialize, Serialize};

const DIR: &str = "node";
const CREDENTIALS: &str = "credentials.pem";
const JOINING: &str = "joining";
const MAP: &str = "map";

/// A map of a thousand nodes has some 500 KiB.
const MAP_BYTES_MAX: u64 = 64 << 20;
const SECRET_BYTES_MAX: u64 = 64 << 10;
const VERSION: u8 = 1;

/// Why what a node keeps could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} {}: {source}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// It was written by another version, or is damaged.
    #[error("{}: {why}", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error(transparent)]
    Credentials(#[from] BadCredentials),
}

/// The files of a node.
#[derive(Clone)]
pub struct Home {
    env: Env,
    /// There is one at least.
    dirs: Vec<PathBuf>,
}

/// Who wants to join: kept until it has joined and its devices are made, so that one who asks again is
/// known to be the same.
pub struct Joining {
    pub key: NodeKey,
    /// The devices that it will have, in the order of its directories.
    pub devices: Vec<DeviceId>,
}

#[derive(Serialize, Deserialize)]
struct JoiningFile {
    key: String,
    devices: Vec<DeviceId>,
}

impl Home {
    /// The node with these data directories.
    pub fn new(env: Env, dirs: &[PathBuf]) -> Self {
        assert!(!dirs.is_empty(), "a node has a directory");
        let dirs = dirs.to_vec();
        Self { env, dirs }
    }

    /// Who this node is: as the first directory has it that says so. `None`: nobody yet.
    ///
    /// # Errors
    /// If none says so, and one cannot be read.
    pub fn credentials(&self) -> Result<Option<Credentials>, Error> {
        let read = self.dirs.iter().map(|dir| self.credentials_in(dir));
        settle(read).map(|found| found.into_iter().next())
    }

    fn credentials_in(&self, dir: &Path) -> Result<Option<Credentials>, Error> {
        let path = dir.join(DIR).join(CREDENTIALS);
        let Some(bytes) = self.read(&path, SECRET_BYTES_MAX)? else {
            return Ok(None);
        };
        let pem = String::from_utf8(bytes).map_err(|error| damaged(&path, error))?;
        let credentials = Credentials::from_pem(&pem).map_err(|error| damaged(&path, error))?;
        Ok(Some(credentials))
    }

    /// Keeps them in all directories.
    ///
    /// # Errors
    /// If one at least could not be written; others may have been.
    pub fn keep_credentials(&self, credentials: &Credentials) -> Result<(), Error> {
        let pem = credentials.to_pem();
        let keep = |dir: &PathBuf| {
            self.make_dir(dir)?;
            self.write(&dir.join(DIR).join(CREDENTIALS), pem.as_bytes())
        };
        self.dirs.iter().try_for_each(keep)
    }

    /// Keeps them where they are not yet: in directories that were added.
    pub fn spread_credentials(&self, credentials: &Credentials) -> Result<(), Error> {
        let lacks = |dir: &&PathBuf| matches!(self.credentials_in(dir), Ok(None));
        let dirs: Vec<_> = self.dirs.iter().filter(lacks).cloned().collect();
        let env = self.env.clone();
        Self { env, dirs }.keep_credentials(credentials)
    }

    /// The newest map that this node knew. `None`: it never knew one.
    ///
    /// # Errors
    /// If none is found, and one cannot be read.
    pub fn map(&self) -> Result<Option<Map>, Error> {
        let read = self.dirs.iter().map(|dir| self.map_in(dir));
        settle(read).map(|found| found.into_iter().max_by_key(|map| map.epoch))
    }

    fn map_in(&self, dir: &Path) -> Result<Option<Map>, Error> {
        let path = dir.join(MAP);
        let Some(bytes) = self.read(&path, MAP_BYTES_MAX)? else {
            return Ok(None);
        };
        let map = Map::decode(checked(&path, &bytes)?);
        map.map(Some).map_err(|error| damaged(&path, error))
    }

    /// Keeps it in every directory that takes it.
    ///
    /// # Errors
    /// Of one that does not.
    pub fn keep_map(&self, map: &Map) -> Result<(), Error> {
        let bytes = with_checksum(map.encode());
        let kept = self
            .dirs
            .iter()
            .map(|dir| self.write(&dir.join(MAP), &bytes));
        // To the end, whatever becomes of one.
        kept.collect::<Vec<_>>().into_iter().collect()
    }

    /// Who wants to join with so many devices: the same one as the last time, or a new one.
    pub fn joining(&self, devices: usize) -> Result<Joining, Error> {
        if let Some(joining) = self.is_joining()?
            && joining.devices.len() == devices
        {
            return Ok(joining);
        }
        let draw = |_| {
            let mut id = [0; 16];
            self.env.entropy.fill(&mut id);
            DeviceId(u128::from_le_bytes(id))
        };
        let joining = Joining {
            key: NodeKey::generate()?,
            devices: (0..devices).map(draw).collect(),
        };
        let file = JoiningFile {
            key: joining.key.to_pem(),
            devices: joining.devices.clone(),
        };
        let bytes = postcard::to_extend(&file, vec![VERSION]);
        let bytes = bytes.expect("texts and numbers can be written");
        self.make_dir(self.first())?;
        self.write(&self.secret(JOINING), &with_checksum(bytes))?;
        Ok(joining)
    }

    /// Who was joining when the last start was cut short.
    pub fn is_joining(&self) -> Result<Option<Joining>, Error> {
        let path = self.secret(JOINING);
        let Some(bytes) = self.read(&path, SECRET_BYTES_MAX)? else {
            return Ok(None);
        };
        let Some((&VERSION, fields)) = checked(&path, &bytes)?.split_first() else {
            return Err(damaged(&path, "of another version"));
        };
        let file: JoiningFile =
            postcard::from_bytes(fields).map_err(|error| damaged(&path, error))?;
        let key = NodeKey::from_pem(&file.key).map_err(|error| damaged(&path, error))?;
        let devices = file.devices;
        Ok(Some(Joining { key, devices }))
    }

    /// The joiner is a node with all its devices.
    pub fn has_joined(&self) -> Result<(), Error> {
        let path = self.secret(JOINING);
        match self.env.disk.remove(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("removing", &path, error)),
        }
        let dir = self.first().join(DIR);
        let synced = self.env.disk.sync_dir(&dir);
        synced.map_err(|error| failed("syncing", &dir, error))
    }

    /// Where it is written who is joining: then nothing is in any of them yet.
    fn first(&self) -> &Path {
        &self.dirs[0]
    }

    fn secret(&self, name: &str) -> PathBuf {
        self.first().join(DIR).join(name)
    }

    fn make_dir(&self, dir: &Path) -> Result<(), Error> {
        let dir = dir.join(DIR);
        let made = self.env.disk.create_dir(&dir);
        made.map_err(|error| failed("making", &dir, error))
    }

    fn read(&self, path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, Error> {
        let file = match self.env.disk.open(path, Open::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("opening", path, error)),
        };
        let failed = |error| failed("reading", path, error);
        let len = file.len().map_err(failed)?;
        if len > bytes_max {
            return Err(damaged(path, format!("{len} bytes, at most {bytes_max}")));
        }
        let mut bytes = vec![0; usize::try_from(len).expect("bounded above")];
        let read = file.read_at(&mut bytes, 0).map_err(failed)?;
        bytes.truncate(read);
        Ok(Some(bytes))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let disk = &*self.env.disk;
        let new = path.with_extension("new");
        let dir = path.parent().expect("a file in a directory");
        let write = || {
            let file = disk.open(&new, Open::Write)?;
            // What was left of an attempt that was cut short.
            file.truncate(0)?;
            file.write_at(&[IoSlice::new(bytes)], 0)?;
            file.sync()?;
            disk.rename(&new, path)?;
            disk.sync_dir(dir)
        };
        write().map_err(|error| failed("writing", path, error))
    }
}

/// What the directories have. What one has counts, also if another cannot be read.
fn settle<T>(read: impl Iterator<Item = Result<Option<T>, Error>>) -> Result<Vec<T>, Error> {
    let (mut found, mut wrong) = (Vec::new(), None);
    for one in read {
        match one {
            Ok(one) => found.extend(one),
            Err(error) => wrong = wrong.or(Some(error)),
        }
    }
    match (wrong, found.is_empty()) {
        (Some(error), true) => Err(error),
        (Some(error), false) => {
            tracing::warn!(%error, "another directory has it");
            Ok(found)
        }
        (None, _) => Ok(found),
    }
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> Error {
    let path = path.to_owned();
    Error::Io { what, path, source }
}

fn damaged(path: &Path, why: impl ToString) -> Error {
    Error::Damaged {
        path: path.to_owned(),
        why: why.to_string(),
    }
}

fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = crc32c(&bytes);
    bytes.extend(checksum.to_le_bytes());
    bytes
}

fn checked<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
    match bytes.split_last_chunk() {
        Some((bytes, checksum)) if crc32c(bytes).to_le_bytes() == *checksum => Ok(bytes),
        Some(_) | None => Err(damaged(path, "wrong checksum")),
    }
}

#[cfg(test)]
mod tests {
    use rpc::Authority;
    use testkit::SimDisk;

    use super::*;

    fn home() -> (Home, SimDisk) {
        let (env, disk, _) = testkit::env(1, 1 << 20);
        env.disk.create_dir(Path::new("/data")).unwrap();
        (Home::new(env, &["/data".into()]), disk)
    }

    fn credentials() -> Credentials {
        let authority = Authority::new(7).unwrap();
        let key = NodeKey::generate().unwrap();
        let certificate = authority.sign(base::NodeId(3), key.public()).unwrap();
        let authority = authority.certificate().to_vec();
        key.certified(certificate, authority).unwrap()
    }

    #[test]
    fn what_is_kept_survives_a_power_cut() {
        let (home, disk) = home();
        assert!(home.credentials().unwrap().is_none() && home.map().unwrap().is_none());
        let map = Map::default().with_devices([DeviceId(1)]);
        let credentials = credentials();
        home.keep_credentials(&credentials).unwrap();
        home.keep_map(&Map::default()).unwrap();
        home.keep_map(&map).unwrap();
        let joining = home.joining(2).unwrap();
        disk.power_cut(1);
        let kept = home.credentials().unwrap().unwrap();
        assert_eq!(kept.to_pem(), credentials.to_pem());
        assert_eq!(home.map().unwrap().unwrap(), map);
        let again = home.joining(2).unwrap();
        assert_eq!(again.key.public(), joining.key.public());
        assert_eq!(again.devices, joining.devices);
        // With other directories it is somebody else.
        let other = home.joining(3).unwrap();
        assert_ne!(other.key.public(), joining.key.public());
        home.has_joined().unwrap();
        home.has_joined().unwrap();
        assert!(home.is_joining().unwrap().is_none());
    }

    #[test]
    fn a_directory_that_is_gone_or_damaged_is_made_up_for_by_another() {
        let (env, _, _) = testkit::env(1, 1 << 20);
        let dirs = [PathBuf::from("/one"), PathBuf::from("/two")];
        dirs.iter()
            .for_each(|dir| env.disk.create_dir(dir).unwrap());
        let home = Home::new(env.clone(), &dirs[..1]);
        let credentials = credentials();
        home.keep_credentials(&credentials).unwrap();
        let older = Map::default().with_devices([DeviceId(1)]);
        home.keep_map(&older).unwrap();
        let home = Home::new(env.clone(), &dirs);
        home.spread_credentials(&credentials).unwrap();
        let newer = older.with_devices([DeviceId(2)]);
        home.keep_map(&newer).unwrap();
        Home::new(env.clone(), &dirs[..1]).keep_map(&older).unwrap();
        let is_there = |home: &Home| {
            assert_eq!(home.map().unwrap().unwrap(), newer);
            let kept = home.credentials().unwrap().unwrap();
            assert_eq!(kept.to_pem(), credentials.to_pem());
        };
        is_there(&home);
        is_there(&Home::new(env.clone(), &dirs[1..]));
        for name in ["map", "node/credentials.pem"] {
            let file = env.disk.open(&dirs[0].join(name), Open::Write).unwrap();
            file.write_at(&[IoSlice::new(b"?")], 5).unwrap();
        }
        is_there(&home);
        // The disk is not mounted.
        is_there(&Home::new(env, &["/empty".into(), dirs[1].clone()]));
    }

    #[test]
    fn whatever_is_damaged_is_refused() {
        let (home, _) = home();
        home.keep_map(&Map::default()).unwrap();
        home.joining(1).unwrap();
        home.keep_credentials(&credentials()).unwrap();
        for name in ["map", "node/joining", "node/credentials.pem"] {
            let path = Path::new("/data").join(name);
            let file = home.env.disk.open(&path, Open::Write).unwrap();
            let mut byte = [0];
            file.read_at(&mut byte, 1).unwrap();
            file.write_at(&[IoSlice::new(&[byte[0] ^ 1])], 1).unwrap();
        }
        assert!(matches!(home.map(), Err(Error::Damaged { .. })));
        assert!(matches!(home.is_joining(), Err(Error::Damaged { .. })));
        assert!(matches!(home.credentials(), Err(Error::Damaged { .. })));
    }
}
