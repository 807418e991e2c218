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
  /// The end of the delay, in nanoseconds since the start of the host.
  private var end: UInt64 = 0

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
    set(milliseconds)
  }

  /// Starts the delay, or makes the running one shorter if it would end later.
  public func start(atMost milliseconds: Int) {
    let wanted = clinux_monotonic_nanoseconds() + UInt64(max(0, milliseconds)) * 1_000_000
    if !isRunning || wanted < end { set(milliseconds) }
  }

  private func set(_ milliseconds: Int) {
    let milliseconds = max(0, milliseconds)
    isRunning = true
    end = clinux_monotonic_nanoseconds() + UInt64(milliseconds) * 1_000_000
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
