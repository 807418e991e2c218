import CFuse
import CLinux
import Glibc
import SystemPackage

/// A timer for a delay: timerfd_create(2).
public final class DelayTimer {
  /// Readable when the delay is over.
  public let descriptor: FileDescriptor
  /// ``start(milliseconds:)`` was called, and ``finish()`` was not called since.
  private var isRunning = false

  /// A timer that does not run. It takes a descriptor.
  public init() throws(Errno) {
    let descriptor = timerfd_create(CLOCK_MONOTONIC, Int32(TFD_CLOEXEC) | Int32(TFD_NONBLOCK))
    guard descriptor >= 0 else { throw .current }
    self.descriptor = FileDescriptor(rawValue: descriptor)
  }

  deinit { try? descriptor.close() }

  /// Starts the delay, unless the timer runs. A delay of 0 is over at once.
  public func start(milliseconds: Int) {
    guard !isRunning else { return }
    isRunning = true
    var time = itimerspec()
    time.it_value.tv_sec = milliseconds / 1000
    // A time of 0 would stop the timer.
    time.it_value.tv_nsec = max(1, milliseconds % 1000 * 1_000_000)
    timerfd_settime(descriptor.rawValue, 0, &time, nil)
  }

  /// Stops the timer after its delay, so that it can be started again.
  public func finish() {
    isRunning = false
    var count: UInt64 = 0
    _ = withUnsafeMutableBytes(of: &count) { try? descriptor.read(into: $0) }
  }
}
