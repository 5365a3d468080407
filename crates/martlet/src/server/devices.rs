//! Which directory becomes or is which device.

use std::path::{Path, PathBuf};

use base::env::Env;
use base::{DeviceId, Timestamp};
use device::{Device, Identity};

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
type Found = (PathBuf, Option<Identity>);

/// The identities of all directories: what they have, or what they are to get. Draws at random, so
/// that it decides purely otherwise.
fn settle(
    found: &[Found],
    shards: u16,
    now: Timestamp,
    mut draw: impl FnMut() -> u128,
) -> Result<Vec<(PathBuf, Identity, Make)>, Error> {
    for (i, (path, identity)) in found.iter().enumerate() {
        for (earlier, other) in &found[..i] {
            match (identity, other) {
                _ if earlier == path => return Err(Error::Twice(path.clone())),
                (Some(a), Some(b)) if a.device == b.device => {
                    return Err(Error::Twins {
                        copy: path.clone(),
                        of: earlier.clone(),
                        device: a.device,
                    });
                }
                (Some(a), Some(b)) if a.cluster != b.cluster => {
                    return Err(Error::Strangers(path.clone(), earlier.clone()));
                }
                _ => {}
            }
        }
    }
    let known = found.iter().find_map(|(_, identity)| *identity);
    let (cluster, shards) = match known {
        Some(known) => (known.cluster, known.shards),
        None => (draw(), shards),
    };
    let settled = found.iter().map(|(path, identity)| match identity {
        Some(identity) => (path.clone(), *identity, Make::Nothing),
        None => {
            let identity = Identity {
                cluster,
                device: DeviceId(draw()),
                shards,
                created: now,
            };
            (path.clone(), identity, Make::Device)
        }
    });
    Ok(settled.collect())
}

/// Whether a directory has to be made a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Make {
    Nothing,
    Device,
}

/// Makes devices of the directories that are none yet.
pub(super) fn prepare(env: &Env, dirs: &[PathBuf], shards: u16) -> anyhow::Result<()> {
    let found = dirs.iter().map(|dir| {
        let identity = Device::inspect(env, dir)?;
        Ok((canonical(dir), identity))
    });
    let found = found.collect::<Result<Vec<_>, device::Error>>()?;
    let draw = || {
        let mut bytes = [0; 16];
        env.entropy.fill(&mut bytes);
        u128::from_le_bytes(bytes)
    };
    for (path, identity, make) in settle(&found, shards, env.clock.now(), draw)? {
        if make == Make::Device {
            Device::format(env, &path, &identity)?;
            tracing::info!(directory = %path.display(), device = %identity.device, "device made");
        }
    }
    Ok(())
}

/// The path without links and dots, so that one directory has one name; as it is where it does not
/// exist yet.
fn canonical(dir: &Path) -> PathBuf {
    dir.canonicalize().unwrap_or_else(|_| dir.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(cluster: u128, device: u128) -> Option<Identity> {
        Some(Identity {
            cluster,
            device: DeviceId(device),
            shards: 4,
            created: Timestamp::from_secs(1),
        })
    }

    fn check(found: &[(&str, Option<Identity>)]) -> Result<Vec<(u128, u128, u16, Make)>, Error> {
        let found: Vec<Found> = found
            .iter()
            .map(|(path, identity)| ((*path).into(), *identity))
            .collect();
        let mut drawn = 100;
        let draw = || {
            drawn += 1;
            drawn
        };
        let settled = settle(&found, 16, Timestamp::from_secs(2), draw)?;
        let brief = settled.iter().map(|(_, identity, make)| {
            (identity.cluster, identity.device.0, identity.shards, *make)
        });
        Ok(brief.collect())
    }

    #[test]
    fn empty_directories_become_one_new_server() {
        assert_eq!(
            check(&[("/a", None), ("/b", None)]),
            Ok(vec![
                (101, 102, 16, Make::Device),
                (101, 103, 16, Make::Device)
            ])
        );
    }

    #[test]
    fn an_empty_directory_joins_what_is_there() {
        assert_eq!(
            check(&[("/a", None), ("/b", identity(7, 8))]),
            Ok(vec![(7, 101, 4, Make::Device), (7, 8, 4, Make::Nothing)])
        );
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let (a, b) = (PathBuf::from("/a"), PathBuf::from("/b"));
        assert_eq!(
            check(&[("/a", identity(1, 1)), ("/b", identity(2, 2))]),
            Err(Error::Strangers(b.clone(), a.clone()))
        );
        assert_eq!(
            check(&[("/a", identity(1, 1)), ("/b", identity(1, 1))]),
            Err(Error::Twins {
                copy: b,
                of: a.clone(),
                device: DeviceId(1),
            })
        );
        assert_eq!(check(&[("/a", None), ("/a", None)]), Err(Error::Twice(a)));
    }
}
