import CLinux
import Glibc

/// The CPUs that the calling thread may run on: sched_setaffinity(2).
struct CPUAffinity {
  /// A bit a CPU.
  private typealias Mask = [UInt64]

  /// What it was before ``follow(_:)``; nil where nothing was changed.
  private var original: Mask?
  /// What ``follow(_:)`` has made of it.
  private var own: Mask = []

  /// No more CPUs than this; the kernel refuses a mask that is shorter than its own.
  private static let words = 128

  private static var current: Mask? {
    var mask = Mask(repeating: 0, count: words)
    return clinux_get_affinity(&mask, 8 * words) > 0 ? mask : nil
  }

  /// There is more than one CPU to run on.
  static var hasChoice: Bool {
    (current ?? []).reduce(0) { $0 + $1.nonzeroBitCount } > 1
  }

  /// Keeps this thread on the CPU that another thread ran on last, if it may run there.
  ///
  /// - Returns: False where it may not, or nobody knows the thread.
  mutating func follow(_ thread: Int32) -> Bool {
    guard let cpu = Self.cpu(of: thread), cpu < 64 * Self.words, let now = Self.current else {
      return false
    }
    // Somebody else has changed it since: that is what it goes back to.
    if original == nil || now != own { original = now }
    guard let original, original[cpu / 64] >> UInt64(cpu % 64) & 1 != 0 else { return false }
    var mask = Mask(repeating: 0, count: Self.words)
    mask[cpu / 64] = 1 << UInt64(cpu % 64)
    guard clinux_set_affinity(mask, 8 * Self.words) == 0 else { return false }
    own = mask
    return true
  }

  /// This thread may run where it could before.
  mutating func release() {
    guard let original else { return }
    if Self.current == own { _ = clinux_set_affinity(original, 8 * Self.words) }
    self.original = nil
  }

  /// The field `processor` of /proc/PID/stat (proc_pid_stat(5)).
  private static func cpu(of thread: Int32) -> Int? {
    let descriptor = open("/proc/\(thread)/stat", O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var text = [UInt8](repeating: 0, count: 1024)
    let count = read(descriptor, &text, text.count)
    // The name of the program, in parentheses, can have anything in it; the third field comes behind.
    guard count > 0, let name = text[..<count].lastIndex(of: UInt8(ascii: ")")) else { return nil }
    let fields = text[(name + 1)..<count].split(separator: UInt8(ascii: " "))
    return fields.count > 36 ? Int(String(decoding: fields[36], as: UTF8.self)) : nil
  }
}
