//! Ctrl-C: the first ends a run where it can be left, the second ends it at once.

use std::thread;

use anyhow::Result;

/// What shells give for a program that SIGINT ended.
const EXIT_CODE: i32 = 130;

/// Listens from now on.
pub(crate) fn listen() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut pressed = {
        let _entered = runtime.enter();
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?
    };
    thread::spawn(move || {
        runtime.block_on(async {
            while pressed.recv().await.is_some() {
                if e2e::progress::interrupt() {
                    std::process::exit(EXIT_CODE);
                }
                eprintln!("ending after this one; again to end at once");
            }
        });
    });
    Ok(())
}
