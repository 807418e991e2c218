import Glibc
import Synchronization

/// Asks the kernel to keep idle CPUs from going to sleep: a CPU latency request of 0 (pm_qos, /dev/cpu_dma_latency).
///
/// An idle CPU halts, or saves power in other ways, and has to be woken by an interrupt. In a virtual machine that is most
/// of the time of a request whose client and server are on two CPUs. The kernel lets root ask for this.
final class WakeLatency: Sendable {
  private let descriptor: Int32
  private let isHeld = Atomic<Bool>(false)

  private static let none: Int32 = 0
  /// `PM_QOS_CPU_LATENCY_DEFAULT_VALUE`: whatever the CPU likes, in microseconds.
  private static let any: Int32 = 2_000_000_000

  /// - Parameter isWanted: False for one that never asks.
  init(isWanted: Bool) {
    descriptor = isWanted ? open("/dev/cpu_dma_latency", O_WRONLY | O_CLOEXEC) : -1
  }

  deinit { if descriptor >= 0 { close(descriptor) } }

  /// This process may ask.
  var isAvailable: Bool { descriptor >= 0 }

  /// It has asked.
  var isRequested: Bool { isHeld.load(ordering: .relaxed) }

  /// - Returns: Whether it had not asked before.
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
