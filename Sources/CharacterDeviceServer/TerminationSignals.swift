import CLinux
import CharacterDeviceServer
import Glibc
import SystemPackage

/// The signals that ask the daemon to end, as a descriptor: signalfd(2).
final class TerminationSignals {
  let descriptor: FileDescriptor

  /// Blocks them for this thread, and so for the whole process, which has but one. A broken pipe kills nothing.
  init() throws {
    signal(SIGPIPE, SIG_IGN)
    var wanted = [SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM]
    if !Self.isIgnored(SIGHUP) { wanted.append(SIGHUP) }
    var set = sigset_t()
    sigemptyset(&set)
    for signal in wanted { sigaddset(&set, signal) }
    sigprocmask(SIG_BLOCK, &set, nil)
    let descriptor = signalfd(-1, &set, Int32(SFD_CLOEXEC | SFD_NONBLOCK))
    guard descriptor >= 0 else { throw Errno.current }
    self.descriptor = FileDescriptor(rawValue: descriptor)
  }

  /// The name of the signal that came.
  func next() -> String {
    var info = signalfd_siginfo()
    let count = withUnsafeMutableBytes(of: &info) { try? descriptor.read(into: $0) }
    guard count == MemoryLayout<signalfd_siginfo>.size else { return "a signal" }
    let names = [
      SIGTERM: "SIGTERM", SIGINT: "SIGINT", SIGQUIT: "SIGQUIT", SIGHUP: "SIGHUP",
      SIGUSR1: "SIGUSR1", SIGUSR2: "SIGUSR2", SIGALRM: "SIGALRM",
    ]
    return names[Int32(info.ssi_signo)] ?? "signal \(info.ssi_signo)"
  }

  /// What nohup(1) has done to SIGHUP, and this process inherits.
  private static func isIgnored(_ signal: Int32) -> Bool {
    var action = sigaction()
    sigaction(signal, nil, &action)
    return unsafeBitCast(action.__sigaction_handler.sa_handler, to: Int.self)
      == unsafeBitCast(SIG_IGN, to: Int.self)
  }
}
