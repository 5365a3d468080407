//! Anything in any order, with crashes and power cuts in between. `SEED=n` replays one run.

use super::*;
use crate::Referenced;

/// What the outside world was told.
#[derive(Default)]
struct Model {
    /// Acknowledged: there, byte for byte.
    written: BTreeMap<u64, usize>,
    /// Nothing was said: there or not, but never with wrong bytes.
    unknown: BTreeMap<u64, usize>,
    /// Their deletion was acknowledged.
    deleted: Vec<u64>,
    next: u64,
}

impl Model {
    async fn check(&self, device: &Device) {
        for (id, len) in &self.written {
            let read = read(device, *id, *len).await;
            let good = read.as_ref().is_ok_and(|read| *read == payload(*id, *len));
            assert!(good, "{id}: {:?}", read.err());
        }
        for (id, len) in &self.unknown {
            match read(device, *id, *len).await {
                Ok(read) => assert!(read == payload(*id, *len), "{id} has wrong bytes"),
                Err(Error::NotFound | Error::Damaged(_)) => {}
                Err(other) => panic!("{id}: {other:?}"),
            }
        }
        for id in &self.deleted {
            assert!(
                !device.store().contains(chunk(*id)).unwrap(),
                "{id} was deleted"
            );
        }
    }

    async fn step(&mut self, device: &Device, random: &mut Random) -> Result<(), Error> {
        match random.below(10) {
            0..=4 => self.write_some(device, random).await,
            5..=6 => self.delete_some(device, random).await,
            7 => device.store().flush().await,
            8 => {
                let segments = device.store().usage().segments;
                let at_rest = device.store().shared.ledger.lock().segments();
                let at_rest: Vec<_> = at_rest.iter().filter(|s| s.is_at_rest()).collect();
                if segments > 2 && !at_rest.is_empty() {
                    let number = at_rest[0].number;
                    blocking(device, move |shared| shared.compact(number))
                        .await
                        .map(drop)?;
                }
                Ok(())
            }
            _ => {
                let _ = blocking(device, |shared| shared.scrub(&|_, _| Referenced::Yes)).await;
                Ok(())
            }
        }
    }

    /// Several at once, as a group commit sees them.
    async fn write_some(&mut self, device: &Device, random: &mut Random) -> Result<(), Error> {
        let ids = self.next..self.next + 1 + random.below(4);
        self.next = ids.end;
        let sizes = [100, 50_000, 300_000, 1_500_000];
        let lens = ids.clone().map(|id| {
            let max = sizes[usize::try_from(random.below(4)).unwrap()];
            (id, 1 + usize::try_from(random.below(max)).unwrap())
        });
        let lens: Vec<_> = lens.collect();
        self.unknown.extend(lens.iter().copied());
        let tasks: Vec<_> = lens
            .into_iter()
            .map(|(id, len)| {
                let device = device.clone();
                tokio::spawn(async move { (id, write(&device, id, len).await) })
            })
            .collect();
        let mut outcome = Ok(());
        for task in tasks {
            let (id, written) = task.await.unwrap();
            match written {
                Ok(()) => self.written.extend(self.unknown.remove_entry(&id)),
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    async fn delete_some(&mut self, device: &Device, random: &mut Random) -> Result<(), Error> {
        let mut gone = self.written.clone();
        gone.retain(|_, _| random.chance(1, 3));
        self.written.retain(|id, _| !gone.contains_key(id));
        self.unknown.extend(gone.clone());
        let ids: Vec<_> = gone.keys().copied().map(chunk).collect();
        device.store().delete(&ids).await?;
        self.unknown.retain(|id, _| !gone.contains_key(id));
        self.deleted.extend(gone.keys());
        Ok(())
    }
}

async fn run(seed: u64) {
    eprintln!("seed {seed}");
    let mut random = Random::new(seed);
    let mut world = World::new(seed, 320 * MIB);
    world.config.write_threads = 1 + usize::try_from(random.below(3)).unwrap();
    let mut model = Model::default();
    for _ in 0..4 {
        if random.chance(1, 2) {
            world.disk.power_off_at(random.below(120));
        }
        if let Ok(device) = world.try_open() {
            for _ in 0..random.below(25) {
                if model.step(&device, &mut random).await.is_err() {
                    break;
                }
            }
            if random.chance(1, 4) {
                let _ = device.close().await;
            }
        }
        // A crash keeps what the system has, a power cut does not.
        world.disk.power_cut(random.u64());
        model.check(&world.open()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_what_was_told_is_true() {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => seed.parse().unwrap()..=seed.parse().unwrap(),
        Err(_) => 0..=20,
    };
    for seed in seeds {
        run(seed).await;
    }
}
