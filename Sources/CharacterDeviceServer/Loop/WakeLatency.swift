import Glibc
import Synchronization

/// A request to the kernel to keep idle CPUs awake: a CPU latency request of 0 (pm_qos, /dev/cpu_dma_latency).
///
/// An idle CPU halts, or saves power in other ways, and an interrupt has to wake it. In a virtual machine, this wake-up is most of the time
/// of a request whose client and server are on two CPUs. Only root can make this request.
final class WakeLatency: Sendable {
  private let descriptor: Int32
  private let isHeld = Atomic<Bool>(false)

  private static let none: Int32 = 0
  /// `PM_QOS_CPU_LATENCY_DEFAULT_VALUE`: no request, in microseconds.
  private static let any: Int32 = 2_000_000_000

  /// - Parameter isWanted: Whether the request may be made at all.
  init(isWanted: Bool) {
    descriptor = isWanted ? open("/dev/cpu_dma_latency", O_WRONLY | O_CLOEXEC) : -1
  }

  deinit { if descriptor >= 0 { close(descriptor) } }

  /// This process may make the request.
  var isAvailable: Bool { descriptor >= 0 }

  /// The request is made.
  var isRequested: Bool { isHeld.load(ordering: .relaxed) }

  /// Makes the request.
  ///
  /// - Returns: Whether the request was not made before.
  func request() -> Bool {
    guard isAvailable, !isHeld.exchange(true, ordering: .relaxed) else { return false }
    set(Self.none)
    return true
  }

  func release() { if isHeld.exchange(false, ordering: .relaxed) { set(Self.any) } }

  private func set(_ microseconds: Int32) {
    var value = microseconds
    _ = write(descriptor, &value, 4)
  }
}
