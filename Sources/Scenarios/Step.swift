import Stage2Sim

/// One step of a scenario: an action of the guest or of its host.
public enum Step: Hashable, Sendable {
  /// `guest …`
  case guest(GuestStep)
  /// `host …`
  case host(HostStep)

  /// Reads a line such as `guest ldrb w0,[0x0b000001]` or `host fork`.
  ///
  /// - Parameters:
  ///   - text: The line without its newline.
  ///   - line: The number of the line, for an error.
  public init(parsing text: some StringProtocol, line: Int = 1) throws(ScenarioError) {
    var parser = try LineParser(text, line: line)
    let first = try parser.word("guest or host")
    switch first.text {
    case "guest": self = .guest(try GuestStep(&parser))
    case "host": self = .host(try HostStep(&parser))
    default: throw parser.error(at: first, expected: "guest or host")
    }
    try parser.end()
  }

  /// The address that the step names. A recording has the leaf of this address below the step.
  public var touchedAddress: IntermediatePhysicalAddress? {
    switch self {
    // Stage 1 of the guest is off.
    case .guest(.instruction(_, let address, _)), .guest(.fetch(let address, _)):
      IntermediatePhysicalAddress(address.rawValue)
    case .host(let step): step.touchedAddress
    }
  }
}

/// An action of the guest.
public enum GuestStep: Hashable, Sendable {
  /// Runs one instruction that accesses `address`, with `x0` in its register.
  case instruction(Instruction, address: GuestVirtualAddress, x0: UInt64)
  /// Continues at `address`, with `x0` in its register.
  case fetch(address: GuestVirtualAddress, x0: UInt64)

  fileprivate init(_ parser: inout LineParser) throws(ScenarioError) {
    let name = try parser.word("fetch or an instruction")
    if name.text == "fetch" {
      let address = GuestVirtualAddress(try parser.number("an address"))
      self = .fetch(address: address, x0: try Self.x0(&parser))
    } else {
      let (instruction, address) = try parser.instruction(mnemonic: name)
      self = .instruction(instruction, address: address, x0: try Self.x0(&parser))
    }
  }

  private static func x0(_ parser: inout LineParser) throws(ScenarioError) -> UInt64 {
    guard !parser.isAtEnd else { return 0 }
    let expected = "x0=VALUE or the end of the line"
    let word = try parser.word(expected)
    guard word.text.hasPrefix("x0=") else { throw parser.error(at: word, expected: expected) }
    return try parser.number(word.part(from: 3), "a value")
  }
}

/// A range of guest physical addresses. A step of the host can name addresses below 2^48.
public struct AddressRange: Hashable, Sendable {
  /// The first address.
  public let address: IntermediatePhysicalAddress
  /// The size in bytes, 0 to 2^48.
  public let size: UInt64

  /// A range; nil if it begins at 2^48 or above, or is longer than 2^48.
  public init?(address: IntermediatePhysicalAddress, size: UInt64) {
    guard address <= HostStep.lastAddress, size <= HostStep.lastAddress.rawValue + 1 else {
      return nil
    }
    self.address = address
    self.size = size
  }
}

/// An action of the host's kernel or of the VMM.
public enum HostStep: Hashable, Sendable {
  /// The VMM writes four bytes.
  case write(address: IntermediatePhysicalAddress, value: UInt32)
  /// The VMM reads four bytes.
  case read(address: IntermediatePhysicalAddress)
  /// The VMM calls madvise(2).
  case madvise(MemoryAdvice, AddressRange)
  /// The VMM calls mprotect(2).
  case mprotect(MemoryProtection, AddressRange)
  /// The VMM calls munmap(2).
  case munmap(AddressRange)
  /// The VMM calls mmap(2) for anonymous memory.
  case mmap(AddressRange)
  /// The VMM calls fork(2). Its child shares its pages.
  case fork
  /// The child ends.
  case endFork
  /// KSM merges equal pages.
  case ksm
  /// Idle page tracking makes a page old.
  case age(address: IntermediatePhysicalAddress)
  /// The VMM uses KVM's dirty log of guest RAM.
  case dirtyLog(DirtyLogStep)
  /// The VMM changes the memory slot of guest RAM.
  case slot(SlotStep)

  /// The largest address that a step can name.
  static let lastAddress = IntermediatePhysicalAddress(1 << 48 - 1)

  private enum Name: String, CaseIterable {
    case write, read, madvise, mprotect, munmap, mmap, fork
    case endFork = "end-fork"
    case ksm, age
    case dirtyLog = "dirty-log"
    case slot
  }

  fileprivate init(_ parser: inout LineParser) throws(ScenarioError) {
    switch try parser.word(of: Name.self) {
    case .write:
      let address = try parser.hostAddress(alignment: 4)
      let word = try parser.word("a value")
      guard let value = UInt32(exactly: try parser.number(word, "a value")) else {
        throw parser.error(at: word, expected: "a value of at most 32 bits")
      }
      self = .write(address: address, value: value)
    case .read: self = .read(address: try parser.hostAddress(alignment: 4))
    case .madvise: self = .madvise(try parser.word(of: MemoryAdvice.self), try parser.range())
    case .mprotect:
      self = .mprotect(try parser.word(of: MemoryProtection.self), try parser.range())
    case .munmap: self = .munmap(try parser.range())
    case .mmap: self = .mmap(try parser.range())
    case .fork: self = .fork
    case .endFork: self = .endFork
    case .ksm: self = .ksm
    case .age: self = .age(address: try parser.hostAddress())
    case .dirtyLog: self = .dirtyLog(try DirtyLogStep(&parser))
    case .slot: self = .slot(try SlotStep(&parser))
    }
  }

  package var touchedAddress: IntermediatePhysicalAddress? {
    switch self {
    case .write(let address, _), .read(let address), .age(let address): address
    case .madvise(_, let range), .mprotect(_, let range), .munmap(let range), .mmap(let range):
      range.address
    case .fork, .endFork, .ksm, .dirtyLog, .slot: nil
    }
  }
}

/// An action of the VMM on the dirty log of guest RAM.
public enum DirtyLogStep: Hashable, Sendable {
  /// Sets or clears `KVM_MEM_LOG_DIRTY_PAGES`.
  case on, off
  /// `KVM_GET_DIRTY_LOG`
  case get
  /// `KVM_CLEAR_DIRTY_LOG`
  case clear(AddressRange)

  fileprivate init(_ parser: inout LineParser) throws(ScenarioError) {
    let names: KeyValuePairs<String, DirtyLogStep?> = [
      "on": .on, "off": .off, "get": .get, "clear": nil,
    ]
    self = if let step = try parser.word(oneOf: names) { step } else { .clear(try parser.range()) }
  }
}

/// An action of the VMM on the slot of guest RAM.
public enum SlotStep: Hashable, Sendable {
  /// Deletes the slot.
  case delete
  /// Makes the slot for reads and writes of the guest.
  case add
  /// Makes the slot with `KVM_MEM_READONLY`.
  case addReadOnly
  /// Moves the slot to another guest physical address.
  case move(to: IntermediatePhysicalAddress)

  fileprivate init(_ parser: inout LineParser) throws(ScenarioError) {
    let names: KeyValuePairs<String, SlotStep?> = [
      "delete": .delete, "add": .add, "add-readonly": .addReadOnly, "move": nil,
    ]
    self =
      if let step = try parser.word(oneOf: names) {
        step
      } else { .move(to: try parser.hostAddress()) }
  }
}

extension LineParser {
  fileprivate mutating func hostAddress(
    alignment: UInt64 = 1
  ) throws(ScenarioError) -> IntermediatePhysicalAddress {
    let word = try word("an address")
    let address = IntermediatePhysicalAddress(try number(word, "an address"))
    guard address <= HostStep.lastAddress else {
      throw error(at: word, expected: "an address of at most 48 bits")
    }
    guard address.rawValue % alignment == 0 else {
      throw error(at: word, expected: "an address that is a multiple of \(alignment)")
    }
    return address
  }

  fileprivate mutating func range() throws(ScenarioError) -> AddressRange {
    let address = try hostAddress()
    let word = try word("a size")
    guard let range = AddressRange(address: address, size: try number(word, "a size")) else {
      throw error(at: word, expected: "a size of at most 48 bits")
    }
    return range
  }
}

extension Step: CustomStringConvertible {
  /// The line.
  public var description: String {
    switch self {
    case .guest(let step): "guest \(step)"
    case .host(let step): "host \(step)"
    }
  }
}

extension GuestStep: CustomStringConvertible {
  /// The line without `guest`.
  public var description: String {
    switch self {
    case .instruction(let instruction, let target, let x0):
      instruction.text(address(target)) + Self.describe(x0)
    case .fetch(let target, let x0): "fetch \(address(target))" + Self.describe(x0)
    }
  }

  private static func describe(_ x0: UInt64) -> String { x0 == 0 ? "" : " x0=\(hex(x0))" }
}

extension AddressRange: CustomStringConvertible {
  /// `0x40000000 0x1000`
  public var description: String { "\(Scenarios.address(address)) \(hex(size))" }
}

extension HostStep: CustomStringConvertible {
  /// The line without `host`.
  public var description: String {
    switch self {
    case .write(let target, let value): "write \(address(target)) \(hex(UInt64(value)))"
    case .read(let target): "read \(address(target))"
    case .madvise(let advice, let range): "madvise \(advice.rawValue) \(range)"
    case .mprotect(let protection, let range): "mprotect \(protection.rawValue) \(range)"
    case .munmap(let range): "munmap \(range)"
    case .mmap(let range): "mmap \(range)"
    case .fork: "fork"
    case .endFork: "end-fork"
    case .ksm: "ksm"
    case .age(let target): "age \(address(target))"
    case .dirtyLog(.on): "dirty-log on"
    case .dirtyLog(.off): "dirty-log off"
    case .dirtyLog(.get): "dirty-log get"
    case .dirtyLog(.clear(let range)): "dirty-log clear \(range)"
    case .slot(.delete): "slot delete"
    case .slot(.add): "slot add"
    case .slot(.addReadOnly): "slot add-readonly"
    case .slot(.move(let target)): "slot move \(address(target))"
    }
  }
}
