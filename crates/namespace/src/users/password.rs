//! Passwords: kept as argon2id verifiers of 19 MiB and two passes, some 20 ms of one processor.
//!
//! No more than two are computed at once and no more than a few wait, so that a flood of logins costs
//! the server two processors and 40 MiB, and is then told to come back.

use std::sync::{Arc, OnceLock};

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use base::env::Env;
use tokio::sync::Semaphore;

use crate::Error;

/// Computed at once: 19 MiB each.
const AT_ONCE_MAX: usize = 2;

/// Computed or waiting: the last one waits some 600 ms.
const WAITING_MAX: usize = 64;

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
        Self {
            env,
            turns: Arc::new(Semaphore::new(AT_ONCE_MAX)),
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

    /// Whether the password is right. Without a verifier it is not, after as long a time.
    pub(crate) async fn verify(
        &self,
        verifier: Option<String>,
        password: &str,
    ) -> Result<bool, Error> {
        let (salt, nobody) = (self.salt(), self.nobody.clone());
        let password = password.to_owned();
        self.compute(move || {
            let is_known = verifier.is_some();
            let nobody = nobody.get_or_init(|| hash(&salt, &salt));
            let verifier = PasswordHash::new(verifier.as_ref().unwrap_or(nobody));
            let is_right = verifier.is_ok_and(|verifier| {
                let verified = Argon2::default().verify_password(password.as_bytes(), &verifier);
                verified.is_ok()
            });
            is_right && is_known
        })
        .await
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
