//! Which directory becomes or is which device.
//!
//! A device is made in three steps: a mark (`DIR/new`), the device itself, and, when all that a first
//! start makes is there, the mark's removal. A directory with the mark never served, so what is
//! in it may be completed: a first start that was cut short is simply done again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use base::env::{Disk, Env, Open};
use base::{DeviceId, Timestamp};
use device::{Device, Identity};
use map::Map;
use parking_lot::Mutex;

/// Why the data directories cannot be used together. Nothing was changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("{} belongs to another server than {}", .0.display(), .1.display())]
    Strangers(PathBuf, PathBuf),
    #[error("{} is a copy of {}: both are device {device}", copy.display(), of.display())]
    Twins {
        copy: PathBuf,
        of: PathBuf,
        device: DeviceId,
    },
    #[error("{} is given twice", .0.display())]
    Twice(PathBuf),
}

/// What is found at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    dir: PathBuf,
    identity: Option<Identity>,
    /// It has the mark of a start that was cut short.
    is_marked: bool,
}

/// What is to be done with the directories.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// No directory has ever served: this is the first start, or what was left of it.
    pub(super) is_new: bool,
    pub(crate) shards: u16,
    /// The id of the cluster that the devices belong to, or will.
    pub(crate) cluster: u128,
    /// Devices that are there.
    pub(crate) made: Vec<PathBuf>,
    /// Directories that are to become devices, or to be completed.
    pub(crate) to_make: Vec<PathBuf>,
    identities: Vec<(PathBuf, Identity)>,
}

/// Whether a server can do without some of its devices: other nodes have what they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spare {
    None,
    Some,
}

impl Plan {
    /// Looks at the directories and changes nothing.
    pub(crate) fn of(
        env: &Env,
        dirs: &[PathBuf],
        shards: u16,
        spare: Spare,
    ) -> anyhow::Result<Self> {
        let (mut found, mut spared) = (Vec::new(), None);
        for dir in dirs {
            let identity = match Device::inspect(env, dir) {
                Ok(identity) => identity,
                Err(error) if spare == Spare::Some && dirs.len() > 1 => {
                    let directory = dir.display();
                    tracing::error!(
                        %directory,
                        %error,
                        "a device is out of service: the node goes on without it"
                    );
                    spared = Some(error);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            found.push(Found {
                identity,
                is_marked: env.disk.open(&dir.join(MARK), Open::Read).is_ok(),
                dir: canonical(dir),
            });
        }
        let draw = || {
            let mut bytes = [0; 16];
            env.entropy.fill(&mut bytes);
            u128::from_le_bytes(bytes)
        };
        let plan = settle(found, shards, env.clock.now(), draw)?;
        match spared {
            // The one that cannot be read may say who this server is.
            Some(error) if plan.is_new => Err(error.into()),
            _ => Ok(plan),
        }
    }

    /// Marks the directories that are to be made and makes devices of them.
    pub(crate) fn make(&self, env: &Env) -> anyhow::Result<()> {
        let disk = &*env.disk;
        for dir in &self.to_make {
            disk.create_dir(dir)
                .map_err(|error| failed("making", dir, error))?;
            mark(disk, dir).map_err(|error| failed("writing into", dir, error))?;
        }
        for (dir, identity) in &self.identities {
            Device::format(env, dir, identity)?;
            tracing::info!(directory = %dir.display(), device = %identity.device, "device made");
        }
        Ok(())
    }

    /// Removes the marks: from now on the devices serve.
    pub(crate) fn done(&self, env: &Env) -> anyhow::Result<()> {
        for dir in &self.to_make {
            unmark(&*env.disk, dir).map_err(|error| failed("writing into", dir, error))?;
        }
        Ok(())
    }
}

/// Devices that a node has got and that are in no map yet: their directories still have the mark.
#[derive(Default)]
pub(super) struct Newcomers(Mutex<BTreeMap<DeviceId, PathBuf>>);

impl Newcomers {
    pub(super) fn add(&mut self, device: &Device) {
        self.0
            .get_mut()
            .insert(device.id(), device.dir().to_owned());
    }

    pub(super) fn ids(&self) -> Vec<DeviceId> {
        self.0.lock().keys().copied().collect()
    }

    /// Whether the device is to be added to the map. The mark of one that is in it is removed.
    pub(super) fn is_new(&self, disk: &dyn Disk, device: DeviceId, map: &Map) -> bool {
        let mut waiting = self.0.lock();
        if !map.devices.contains_key(&device) {
            return waiting.contains_key(&device);
        }
        if let Some(dir) = waiting.remove(&device)
            && let Err(error) = unmark(disk, &dir)
        {
            // The next start does it.
            tracing::warn!(%device, %error, "a directory is still marked as new");
        }
        false
    }
}

pub(super) const MARK: &str = "new";

pub(super) fn unmark(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    disk.remove(&dir.join(MARK))?;
    disk.sync_dir(dir)
}

fn mark(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    disk.open(&dir.join(MARK), Open::Write)?.sync()?;
    disk.sync_dir(dir)
}

fn failed(what: &str, dir: &Path, error: io::Error) -> anyhow::Error {
    anyhow::Error::new(error).context(format!("{what} {}", dir.display()))
}

/// Decides. Draws at random, and that is all it does.
fn settle(
    found: Vec<Found>,
    shards: u16,
    now: Timestamp,
    mut draw: impl FnMut() -> u128,
) -> Result<Plan, Error> {
    for (i, one) in found.iter().enumerate() {
        for earlier in &found[..i] {
            belong_together(one, earlier)?;
        }
    }
    let known = found.iter().find_map(|found| found.identity);
    let (cluster, shards) = match known {
        Some(known) => (known.cluster, known.shards),
        None => (draw(), shards),
    };
    let mut plan = Plan {
        is_new: found
            .iter()
            .all(|found| found.identity.is_none() || found.is_marked),
        shards,
        cluster,
        made: Vec::new(),
        to_make: Vec::new(),
        identities: Vec::new(),
    };
    for Found {
        dir,
        identity,
        is_marked,
    } in found
    {
        if identity.is_none() {
            let identity = Identity {
                cluster,
                device: DeviceId(draw()),
                shards,
                created: now,
            };
            plan.identities.push((dir.clone(), identity));
        }
        match identity {
            Some(_) if !is_marked => plan.made.push(dir),
            _ => plan.to_make.push(dir),
        }
    }
    Ok(plan)
}

fn belong_together(one: &Found, earlier: &Found) -> Result<(), Error> {
    if one.dir == earlier.dir {
        return Err(Error::Twice(one.dir.clone()));
    }
    match (&one.identity, &earlier.identity) {
        (Some(a), Some(b)) if a.device == b.device => Err(Error::Twins {
            copy: one.dir.clone(),
            of: earlier.dir.clone(),
            device: a.device,
        }),
        (Some(a), Some(b)) if a.cluster != b.cluster => {
            Err(Error::Strangers(one.dir.clone(), earlier.dir.clone()))
        }
        _ => Ok(()),
    }
}

/// The path without links and dots, so that one directory has one name; as it is where it does not
/// exist yet.
fn canonical(dir: &Path) -> PathBuf {
    dir.canonicalize().unwrap_or_else(|_| dir.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(dir: &str, identity: Option<(u128, u128)>, is_marked: bool) -> Found {
        let identity = identity.map(|(cluster, device)| Identity {
            cluster,
            device: DeviceId(device),
            shards: 4,
            created: Timestamp::from_secs(1),
        });
        Found {
            dir: dir.into(),
            identity,
            is_marked,
        }
    }

    fn plan(found: Vec<Found>) -> Result<Plan, Error> {
        let mut drawn = 100;
        let draw = || {
            drawn += 1;
            drawn
        };
        settle(found, 16, Timestamp::from_secs(2), draw)
    }

    #[track_caller]
    fn check(
        found: Vec<Found>,
        is_new: bool,
        shards: u16,
        made: &[&str],
        to_make: &[&str],
    ) -> Plan {
        let paths = |dirs: &[&str]| dirs.iter().map(PathBuf::from).collect::<Vec<_>>();
        let plan = plan(found).unwrap();
        assert_eq!((plan.is_new, plan.shards), (is_new, shards));
        assert_eq!((&plan.made, &plan.to_make), (&paths(made), &paths(to_make)));
        plan
    }

    #[test]
    fn who_cannot_read_who_it_is_does_not_begin_anew() {
        let (env, _, _) = testkit::env(1, 1 << 20);
        let dirs = [PathBuf::from("/one"), PathBuf::from("/two")];
        let first = Plan::of(&env, &dirs[..1], 4, Spare::Some).unwrap();
        first.make(&env).unwrap();
        first.done(&env).unwrap();
        let is_new = |spare| Plan::of(&env, &dirs, 4, spare).map(|plan| plan.is_new);
        assert!(!is_new(Spare::Some).unwrap());
        let path = dirs[0].join("identity");
        let file = env.disk.open(&path, Open::Write).unwrap();
        let len = usize::try_from(file.len().unwrap()).unwrap();
        file.write_at(&[std::io::IoSlice::new(&vec![7; len])], 0)
            .unwrap();
        assert!(is_new(Spare::Some).is_err());
        assert!(is_new(Spare::None).is_err());
        // With another one that says who it is, it goes on.
        let second = Plan::of(&env, &dirs[1..], 4, Spare::Some).unwrap();
        second.make(&env).unwrap();
        second.done(&env).unwrap();
        let plan = Plan::of(&env, &dirs, 4, Spare::Some).unwrap();
        assert_eq!((plan.is_new, plan.made), (false, dirs[1..].to_vec()));
        assert!(is_new(Spare::None).is_err());
    }

    #[test]
    fn empty_directories_become_one_new_server() {
        let empty = vec![found("/a", None, false), found("/b", None, false)];
        let plan = check(empty, true, 16, &[], &["/a", "/b"]);
        let ids = plan
            .identities
            .iter()
            .map(|(_, id)| (id.cluster, id.device.0, id.shards));
        assert_eq!(ids.collect::<Vec<_>>(), [(101, 102, 16), (101, 103, 16)]);
    }

    #[test]
    fn a_first_start_that_was_cut_short_is_completed() {
        let cut = vec![
            found("/a", Some((7, 8)), true),
            found("/b", None, true),
            found("/c", None, false),
        ];
        let plan = check(cut, true, 4, &[], &["/a", "/b", "/c"]);
        let made = plan
            .identities
            .iter()
            .map(|(dir, id)| (dir.to_str().unwrap(), id.cluster));
        assert_eq!(made.collect::<Vec<_>>(), [("/b", 7), ("/c", 7)]);
    }

    #[test]
    fn a_directory_joins_what_is_there() {
        let joins = vec![found("/a", None, false), found("/b", Some((7, 8)), false)];
        check(joins, false, 4, &["/b"], &["/a"]);
        let cut = vec![
            found("/a", Some((7, 9)), true),
            found("/b", Some((7, 8)), false),
        ];
        let plan = check(cut, false, 4, &["/b"], &["/a"]);
        assert!(plan.identities.is_empty());
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let (a, b) = (PathBuf::from("/a"), PathBuf::from("/b"));
        let two = |one, other| plan(vec![found("/a", one, false), found("/b", other, false)]);
        assert_eq!(
            two(Some((1, 1)), Some((2, 2))),
            Err(Error::Strangers(b.clone(), a.clone()))
        );
        assert_eq!(
            two(Some((1, 1)), Some((1, 1))),
            Err(Error::Twins {
                copy: b,
                of: a.clone(),
                device: DeviceId(1)
            })
        );
        let twice = plan(vec![found("/a", None, false), found("/a", None, false)]);
        assert_eq!(twice, Err(Error::Twice(a)));
    }
}
