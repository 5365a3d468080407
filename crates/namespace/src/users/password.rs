//! Passwords: kept as argon2id verifiers of 19 MiB and two passes, some 20 ms of one processor.
//!
//! No more than two are computed at once, on half of the processors at most, and no more than a few
//! wait; so a flood of logins or guesses, through whichever door, leaves the other half and all but
//! 40 MiB to those who have a token, and is then told to come back. A wrong password is answered late,
//! for those who try one after the other.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use base::env::Env;
use tokio::sync::Semaphore;

use crate::Error;

/// Computed at once: 19 MiB each.
const AT_ONCE_MAX: usize = 2;

/// Computed or waiting: the last one waits some 1.3 s.
const WAITING_MAX: usize = 64;

/// What a wrong password waits for its answer, when it is known to be wrong.
const WRONG_PAUSE: Duration = Duration::from_secs(1);

/// Computes verifiers.
pub(crate) struct Passwords {
    env: Env,
    turns: Arc<Semaphore>,
    waiting: Semaphore,
    /// Of a password that nobody has: for users that do not exist.
    nobody: Arc<OnceLock<String>>,
}

impl Passwords {
    pub(crate) fn new(env: Env) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let at_once = (processors / 2).clamp(1, AT_ONCE_MAX);
        Self {
            env,
            turns: Arc::new(Semaphore::new(at_once)),
            waiting: Semaphore::new(WAITING_MAX),
            nobody: Arc::default(),
        }
    }

    /// The verifier of a password.
    ///
    /// # Errors
    /// [`Error::Limit`] if it is empty; [`Error::Unavailable`] if too many wait.
    pub(crate) async fn protect(&self, password: &str) -> Result<String, Error> {
        if password.is_empty() {
            return Err(Error::Limit("the password is empty".to_owned()));
        }
        let salt = self.salt();
        let password = password.to_owned();
        self.compute(move || hash(password.as_bytes(), &salt)).await
    }

    /// Whether the password is right. Without a verifier it is not, after as long a time as with a
    /// wrong password.
    pub(crate) async fn verify(
        &self,
        verifier: Option<String>,
        password: &str,
    ) -> Result<bool, Error> {
        let (salt, nobody) = (self.salt(), self.nobody.clone());
        let password = password.to_owned();
        let verified = self.compute(move || {
            let is_known = verifier.is_some();
            let nobody = nobody.get_or_init(|| hash(&salt, &salt));
            let verifier = PasswordHash::new(verifier.as_ref().unwrap_or(nobody));
            let is_right = verifier.is_ok_and(|verifier| {
                let verified = Argon2::default().verify_password(password.as_bytes(), &verifier);
                verified.is_ok()
            });
            is_right && is_known
        });
        let is_right = verified.await?;
        if !is_right {
            tokio::time::sleep(WRONG_PAUSE).await;
        }
        Ok(is_right)
    }

    fn salt(&self) -> [u8; 16] {
        let mut salt = [0; 16];
        self.env.entropy.fill(&mut salt);
        salt
    }

    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let _waiting = self.waiting.try_acquire().map_err(|_| Error::later())?;
        let turn = self.turns.clone().acquire_owned().await;
        let turn = turn.expect("the semaphore is never closed");
        // The turn goes with the work: who stops waiting does not stop it.
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        match done.await {
            Ok(done) => Ok(done),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is going down.
            Err(_) => Err(Error::later()),
        }
    }
}

fn hash(password: &[u8], salt: &[u8]) -> String {
    let hash: PasswordHash = Argon2::default()
        .hash_password_with_salt(password, salt)
        .expect("the parameters are the crate's own, and the password is shorter than 4 GiB");
    hash.to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use futures_util::future::join_all;

    use super::*;

    fn passwords() -> Passwords {
        Passwords::new(Env::real())
    }

    #[tokio::test]
    async fn a_flood_is_bounded() {
        let passwords = passwords();
        let running = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
        let guesses = (0..WAITING_MAX + 10).map(|_| {
            let running = running.clone();
            passwords.compute(move || {
                let (now, most) = &*running;
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                std::thread::yield_now();
                now.fetch_sub(1, SeqCst);
            })
        });
        let done = join_all(guesses).await;
        let refused = done.iter().filter(|done| **done == Err(Error::later()));
        assert_eq!(refused.count(), 10);
        assert_eq!(done.iter().filter(|done| done.is_ok()).count(), WAITING_MAX);
        let most = running.1.load(SeqCst);
        let processors = std::thread::available_parallelism().unwrap().get();
        assert!(most <= 2 && most <= processors.div_ceil(2), "{most}");
        assert_eq!(passwords.compute(|| 7).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_password_is_answered_late() {
        let passwords = passwords();
        let verifier = passwords.protect("right").await.unwrap();
        let took = async |verifier: Option<&String>, password: &str, expected| {
            let start = tokio::time::Instant::now();
            let verified = passwords.verify(verifier.cloned(), password).await;
            assert_eq!(verified, Ok(expected), "{password}");
            start.elapsed()
        };
        assert_eq!(took(Some(&verifier), "right", true).await, Duration::ZERO);
        assert!(took(Some(&verifier), "wrong", false).await >= WRONG_PAUSE);
        assert!(took(None, "right", false).await >= WRONG_PAUSE);
    }
}
