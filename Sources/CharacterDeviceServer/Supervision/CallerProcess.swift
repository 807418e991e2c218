import CLinux
import Glibc
import SystemPackage

/// The process of a call: its memory and its files. Each of these can be missing, as the process can end at any time.
struct CallerProcess {
  let thread: pid_t

  // MARK: - Memory

  /// Copies memory of the process.
  ///
  /// - Returns: The bytes up to the first one that is missing; nil if there are none.
  func bytes(at address: UInt64, count: Int) -> [UInt8]? {
    guard count > 0 else { return [] }
    var copied = -1
    let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, size in
      copied = clinux_copy_memory(thread, buffer.baseAddress, address, count, 0)
      size = max(0, copied)
    }
    return copied > 0 ? bytes : nil
  }

  /// Changes memory of the process.
  ///
  /// - Returns: Whether all of the memory is there.
  func setBytes(at address: UInt64, _ bytes: UnsafeRawBufferPointer) -> Bool {
    guard let base = bytes.baseAddress, bytes.count > 0 else { return true }
    return clinux_copy_memory(
      thread, UnsafeMutableRawPointer(mutating: base), address, bytes.count, 1) == bytes.count
  }

  func setBytes(at address: UInt64, _ bytes: [UInt8]) -> Bool {
    bytes.withUnsafeBytes { setBytes(at: address, $0) }
  }

  /// Copies the bytes of a value into the memory of the process.
  func setValue(at address: UInt64, _ value: some BitwiseCopyable) -> Bool {
    withUnsafeBytes(of: value) { setBytes(at: address, $0) }
  }

  func integer<Value: FixedWidthInteger>(at address: UInt64, as type: Value.Type) -> Value? {
    guard let bytes = bytes(at: address, count: MemoryLayout<Value>.size) else { return nil }
    return Value(in: bytes.span)
  }

  /// The path at an address, without its final zero byte; nil if it is not a path.
  func path(at address: UInt64) -> [UInt8]? {
    // Most paths end in their page.
    let page: UInt64 = 4096
    let first = min(Int(page - address % page), Int(PATH_MAX))
    guard var bytes = bytes(at: address, count: first) else { return nil }
    if let end = bytes.firstIndex(of: 0) { return Array(bytes[..<end]) }
    guard let rest = self.bytes(at: address &+ UInt64(first), count: Int(PATH_MAX) - first) else {
      return nil
    }
    guard let end = rest.firstIndex(of: 0) else { return nil }
    bytes += rest[..<end]
    return bytes
  }

  /// The areas of a vector: `struct iovec`; nil if the vector is not in the memory.
  func areas(at address: UInt64, count: Int) -> [MemoryArea]? {
    guard count > 0 else { return [] }
    let size = MemoryLayout<iovec>.size
    guard let bytes = bytes(at: address, count: count * size), bytes.count == count * size else {
      return nil
    }
    return bytes.withUnsafeBytes { bytes in
      (0..<count).map { index in
        MemoryArea(
          address: bytes.loadUnaligned(fromByteOffset: index * size, as: UInt64.self),
          count: bytes.loadUnaligned(fromByteOffset: index * size + 8, as: Int.self))
      }
    }
  }

  // MARK: - Files

  /// The text of a file of the process in /proc; empty if the process has ended.
  private func text(of file: String) -> String { ProcFile.text(of: "/proc/\(thread)/\(file)") }

  /// The number of the pipe that a descriptor of the process is; nil for any other file.
  func pipe(_ descriptor: Int32) -> UInt64? {
    guard descriptor >= 0 else { return nil }
    return CallerProcess.link("/proc/\(thread)/fd/\(descriptor)").flatMap(CallerProcess.pipe)
  }

  /// The target of a symbolic link; nil if the path is no link.
  static func link(_ path: String) -> [UInt8]? {
    link(Array(path.utf8))
  }

  static func link(_ path: [UInt8]) -> [UInt8]? {
    let size = Int(PATH_MAX)
    var length = -1
    let target = withUnsafeTemporaryAllocation(of: UInt8.self, capacity: path.count + 1) { name in
      _ = name.initialize(from: path)
      name[path.count] = 0
      return [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
        length = buffer.withMemoryRebound(to: CChar.self) { buffer in
          name.withMemoryRebound(to: CChar.self) { name in
            readlink(name.baseAddress!, buffer.baseAddress!, size)
          }
        }
        count = max(0, length)
      }
    }
    return length > 0 ? target : nil
  }

  /// The number of a pipe in the text of a link: `pipe:[1234]`.
  static func pipe(_ link: [UInt8]) -> UInt64? {
    let prefix = Array("pipe:[".utf8)
    guard link.starts(with: prefix), link.last == UInt8(ascii: "]") else { return nil }
    var number: UInt64 = 0
    for digit in link[prefix.count..<link.count - 1] {
      guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(digit), number < 1 << 56 else {
        return nil
      }
      number = number * 10 + UInt64(digit - UInt8(ascii: "0"))
    }
    return number
  }

  // MARK: - Rights and signals

  /// The process's rights to files.
  struct Rights {
    var realUser: UInt32 = 0
    var user: UInt32 = 0
    var realGroup: UInt32 = 0
    var group: UInt32 = 0
    var groups: [UInt32] = []
    fileprivate(set) var capabilities: UInt64 = 0
    fileprivate let thread: pid_t

    fileprivate init(_ thread: pid_t) { self.thread = thread }

    /// Whether the process has a capability in the user namespace of this process. Root of another user namespace has none here.
    func has(_ capability: Int32) -> Bool {
      guard capabilities & 1 << UInt64(capability) != 0 else { return false }
      return CallerProcess.link("/proc/\(thread)/ns/user")
        == CallerProcess.link("/proc/self/ns/user")
    }
  }

  /// The rights; nil if the process has ended.
  var rights: Rights? {
    var rights = Rights(thread)
    var isComplete = false
    for line in text(of: "status").split(separator: "\n") {
      let words = line.split { $0 == "\t" || $0 == " " }
      guard let field = words.first else { continue }
      let numbers = words.dropFirst().compactMap { UInt32($0) }
      switch field {
      case "Uid:" where numbers.count == 4:
        (rights.realUser, rights.user) = (numbers[0], numbers[3])
        isComplete = true
      case "Gid:" where numbers.count == 4:
        (rights.realGroup, rights.group) = (numbers[0], numbers[3])
      case "Groups:": rights.groups = numbers
      case "CapEff:": rights.capabilities = words.last.flatMap { UInt64($0, radix: 16) } ?? 0
      default: break
      }
    }
    return isComplete ? rights : nil
  }

  /// Whether a signal has come that the thread takes when its call returns.
  var hasSignal: Bool {
    var pending: UInt64 = 0
    var blocked: UInt64 = 0
    for line in text(of: "status").split(separator: "\n") {
      let words = line.split(separator: "\t")
      guard words.count == 2, let mask = UInt64(words[1], radix: 16) else { continue }
      switch words[0] {
      case "SigPnd:", "ShdPnd:": pending |= mask
      case "SigBlk:": blocked = mask
      default: break
      }
    }
    return pending & ~blocked != 0
  }
}
