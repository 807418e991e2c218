import CLinux
import Glibc
import SystemPackage

/// The signals that ask a server to end, as a descriptor for an ``EventLoop``: signalfd(2).
///
/// These are SIGTERM, SIGINT, SIGHUP (unless the process ignores it, as under nohup(1)), SIGQUIT, SIGUSR1, SIGUSR2 and SIGALRM. Each of
/// these signals would otherwise kill the process and leave its node behind.
public final class TerminationSignals {
  /// A descriptor that is readable when a signal has come.
  public let descriptor: FileDescriptor

  /// Blocks the signals for this thread and for threads that it starts later. Call it first in the program. SIGPIPE is ignored.
  ///
  /// - Parameter others: Other signals that come by the same descriptor.
  public init(and others: [Int32] = []) throws(Errno) {
    signal(SIGPIPE, SIG_IGN)
    var wanted = [SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM] + others
    if !Self.isIgnored(SIGHUP) { wanted.append(SIGHUP) }
    var set = sigset_t()
    sigemptyset(&set)
    for signal in wanted { sigaddset(&set, signal) }
    sigprocmask(SIG_BLOCK, &set, nil)
    let descriptor = signalfd(-1, &set, Int32(SFD_CLOEXEC | SFD_NONBLOCK))
    guard descriptor >= 0 else { throw .current }
    self.descriptor = FileDescriptor(rawValue: descriptor)
  }

  deinit { try? descriptor.close() }

  /// A signal that came.
  public struct Signal: Sendable {
    public let number: Int32
    /// A process has sent the signal, and not the kernel. A signal from a terminal comes from the kernel.
    public let isFromProcess: Bool
  }

  /// Takes the signal that came; nil if there is none.
  public func take() -> Signal? {
    receive().map {
      // The codes of the kernel are greater than 0: sigaction(2).
      Signal(number: Int32($0.ssi_signo), isFromProcess: $0.ssi_code <= 0)
    }
  }

  private func receive() -> signalfd_siginfo? {
    var info = signalfd_siginfo()
    let count = withUnsafeMutableBytes(of: &info) { try? descriptor.read(into: $0) }
    return count == MemoryLayout<signalfd_siginfo>.size ? info : nil
  }

  /// The name of the signal that came.
  public func next() -> String {
    guard let info = receive() else { return "a signal" }
    let names = [
      SIGTERM: "SIGTERM", SIGINT: "SIGINT", SIGQUIT: "SIGQUIT", SIGHUP: "SIGHUP",
      SIGUSR1: "SIGUSR1", SIGUSR2: "SIGUSR2", SIGALRM: "SIGALRM", SIGWINCH: "SIGWINCH",
      SIGTSTP: "SIGTSTP", SIGCONT: "SIGCONT",
    ]
    return names[Int32(info.ssi_signo)] ?? "signal \(info.ssi_signo)"
  }

  /// Lets a signal have the effect on this process that it has if it is not blocked.
  public func passOn(_ signal: Int32) {
    var set = sigset_t()
    sigemptyset(&set)
    sigaddset(&set, signal)
    raise(signal)
    sigprocmask(SIG_UNBLOCK, &set, nil)
    sigprocmask(SIG_BLOCK, &set, nil)
  }

  /// Whether this process ignores a signal: under nohup(1), it has inherited this for SIGHUP.
  private static func isIgnored(_ signal: Int32) -> Bool {
    var action = sigaction()
    sigaction(signal, nil, &action)
    return unsafeBitCast(action.__sigaction_handler.sa_handler, to: Int.self)
      == unsafeBitCast(SIG_IGN, to: Int.self)
  }
}
