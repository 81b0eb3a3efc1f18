//! Ctrl-C and SIGTERM end the demo at once, wherever it was started from.

/// Ends with the status that shells give to a signal. The namespaces and the daemon end with the process.
extern "C" fn end(signal: i32) {
    const MESSAGE: &[u8] = b"\ndemo: interrupted; the lab is gone with it\n";
    // SAFETY: write and _exit are async-signal-safe, and the message is a live buffer of the length given.
    unsafe {
        libc::write(libc::STDERR_FILENO, MESSAGE.as_ptr().cast(), MESSAGE.len());
        libc::_exit(128 + signal);
    }
}

/// Takes the signals, also where a shell had them ignored because it runs the demo in the background.
pub(crate) fn take_signals() {
    let handler: extern "C" fn(i32) = end;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler calls async-signal-safe functions only.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}
