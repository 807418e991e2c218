import Stage2Sim

/// An observation of a step: one of the lines below the step in a recording (docs/scenario.md).
public enum Observation: Hashable, Sendable {
  /// A run of the guest has ended.
  case run(GuestRun)
  /// A step of the host has ended: nil for success, or the error of its system call.
  case result(KernelError?)
  /// The word that the VMM has read from the guest's memory.
  case value(UInt32)
  /// Pages in the dirty log: the first address, and their number.
  case dirty(address: IntermediatePhysicalAddress, pages: Int)
  /// A stage-2 abort: ESR_EL2, FAR_EL2 and HPFAR_EL2.
  case abort(syndrome: UInt64, far: GuestVirtualAddress, hpfar: UInt64)
  /// KVM has invalidated the TLB entries of one IPA.
  case invalidation(ipa: IntermediatePhysicalAddress, level: Int)
  /// The same on the CPU of the vCPU only (`__kvm_tlb_flush_vmid_ipa_nsh`).
  case localInvalidation(ipa: IntermediatePhysicalAddress, level: Int)
  /// KVM has invalidated the TLB entries of a range of pages.
  case invalidationOfRange(ipa: IntermediatePhysicalAddress, pages: UInt64)
  /// KVM has invalidated all TLB entries of the VM.
  case invalidationOfAll
  /// A line that the hook has logged.
  case log(String)
  /// The entry that maps an address, before the step and after it.
  case leaf(IntermediatePhysicalAddress, before: ObservedLeaf, after: ObservedLeaf)
}

/// The end of a run of the guest, as the recorder sees it.
public struct GuestRun: Hashable, Sendable {
  /// The way in which a run ends.
  public enum End: Hashable, Sendable {
    /// The guest has done the instruction.
    case retired
    /// The guest has taken an exception: ESR_EL1, and FAR_EL1 if the exception has an address.
    case exception(syndrome: UInt64, address: GuestVirtualAddress?)
    /// KVM_RUN has returned with KVM_EXIT_MMIO. `data` is the value of a store, and nil for a load. `then` is the register after
    /// the recorder has answered a load.
    case mmio(address: IntermediatePhysicalAddress, length: Int, data: UInt64?, then: UInt64?)
    /// KVM_RUN has failed.
    case failed(KernelError)
    /// The guest takes the same fault again and again, and a signal has ended KVM_RUN.
    case hung
    /// The model does not run this instruction.
    case notModelled(UInt32)
  }

  /// The way in which the run has ended.
  public let end: End
  /// The distance from the instruction to the program counter in bytes; nil for an exception.
  public let moved: Int64?
  /// Register x0.
  public let x0: UInt64

  /// The end of a run.
  public init(_ end: End, moved: Int64?, x0: UInt64) {
    self.end = end
    self.moved = moved
    self.x0 = x0
  }
}

/// A stage-2 entry as a recording has it.
public struct ObservedLeaf: Hashable, Sendable {
  /// The level of the entry.
  public let level: Int
  /// The entry without its output address.
  public let attributes: UInt64
  /// The letter that stands for the output address; nil for address 0.
  public let frame: String?
  /// The reference counts of the tables on the way to the entry, from the start level down.
  public let counts: [Int]

  /// An entry.
  public init(level: Int, attributes: UInt64, frame: String?, counts: [Int]) {
    self.level = level
    self.attributes = attributes
    self.frame = frame
    self.counts = counts
  }
}

// MARK: - The text

extension Observation: CustomStringConvertible {
  /// The line of a recording, without the two spaces in front of it.
  public var description: String {
    switch self {
    case .run(let run): "run \(run)"
    case .result(let error): error.map { "result \($0)" } ?? "result 0"
    case .value(let value): "value 0x\(hexadecimal(UInt64(value), digits: 8))"
    case .dirty(let address, let pages):
      "dirty \(hex(address))" + (pages > 1 ? " pages \(pages)" : "")
    case .abort(let syndrome, let far, let hpfar):
      "abort esr=\(hexadecimal(syndrome, digits: 8)) far=\(hexadecimal(far.rawValue, digits: 16)) hpfar=\(hexadecimal(hpfar, digits: 10))"
    case .invalidation(let ipa, let level):
      "tlbi ipa=\(hexadecimal(ipa.rawValue, digits: 10)) level=\(level)"
    case .localInvalidation(let ipa, let level):
      "tlbi ipa=\(hexadecimal(ipa.rawValue, digits: 10)) level=\(level) nsh"
    case .invalidationOfRange(let ipa, let pages):
      "tlbi ipa=\(hexadecimal(ipa.rawValue, digits: 10)) pages=\(hexadecimal(pages))"
    case .invalidationOfAll: "tlbi all"
    case .log(let line): "log \(line)"
    case .leaf(let address, let before, let after):
      "leaf \(hex(address)) \(before)" + (before == after ? "" : " -> \(after)")
    }
  }
}

extension GuestRun: CustomStringConvertible {
  /// The line without `run`.
  public var description: String {
    switch end {
    case .retired: "retired \(state)"
    case .exception(let syndrome, let address):
      "exception esr_el1=\(hexadecimal(syndrome, digits: 8))"
        + (address.map { " far_el1=\(hexadecimal($0.rawValue, digits: 16))" } ?? "") + " \(state)"
    case .mmio(let address, let length, let data, let then):
      "mmio \(data == nil ? "read" : "write") \(hex(address)) len \(length)"
        + (data.map { " data \(hex($0))" } ?? "") + " \(state)"
        + (then.map { " then \(hex($0))" } ?? "")
    case .failed(let error): "error \(error) \(state)"
    case .hung: "hung \(state)"
    case .notModelled(let word): "not modelled, instruction \(hex(UInt64(word))) \(state)"
    }
  }

  private var state: String {
    let pc = moved.map { "pc \($0 < 0 ? "" : "+")\($0) " } ?? ""
    return "\(pc)x0 \(hex(x0))"
  }
}

extension ObservedLeaf: CustomStringConvertible {
  /// `level 3 0040000000000fff @A counts 3 2 513`
  public var description: String {
    var text = "level \(level) \(hexadecimal(attributes, digits: 16))"
    if let frame { text += " @\(frame)" }
    text += " counts"
    for count in counts { text += " \(count)" }
    return text
  }
}

// MARK: - Reading

extension Observation {
  /// Reads a line of a recording, without the two spaces in front of it; nil if the line is no observation.
  public init?(parsing line: some StringProtocol) {
    var words = Words(line)
    switch words.next() {
    case "run":
      guard let run = GuestRun(&words) else { return nil }
      self = .run(run)
    case "result":
      guard let word = words.next() else { return nil }
      if word == "0" {
        self = .result(nil)
      } else {
        guard let error = KernelError(named: word) else { return nil }
        self = .result(error)
      }
    case "value":
      guard let value = words.number(), let value = UInt32(exactly: value) else { return nil }
      self = .value(value)
    case "dirty":
      guard let address = words.number() else { return nil }
      let pages = words.isAtEnd ? 1 : words.skip("pages") ? words.decimal() : nil
      guard let pages else { return nil }
      self = .dirty(address: IntermediatePhysicalAddress(address), pages: pages)
    case "abort":
      guard let syndrome = words.field("esr="), let far = words.field("far="),
        let hpfar = words.field("hpfar=")
      else { return nil }
      self = .abort(syndrome: syndrome, far: GuestVirtualAddress(far), hpfar: hpfar)
    case "tlbi":
      if words.skip("all") {
        self = .invalidationOfAll
      } else {
        guard let ipa = words.field("ipa=").map(IntermediatePhysicalAddress.init(_:)) else {
          return nil
        }
        if let pages = words.field("pages=") {
          self = .invalidationOfRange(ipa: ipa, pages: pages)
        } else {
          guard let level = words.field("level=") else { return nil }
          self =
            words.skip("nsh")
            ? .localInvalidation(ipa: ipa, level: Int(level))
            : .invalidation(ipa: ipa, level: Int(level))
        }
      }
    case "log":
      self = .log(words.rest())
    case "leaf":
      guard let address = words.number().map(IntermediatePhysicalAddress.init(_:)),
        let before = ObservedLeaf(&words)
      else { return nil }
      guard words.skip("->") else {
        self = .leaf(address, before: before, after: before)
        break
      }
      guard let after = ObservedLeaf(&words) else { return nil }
      self = .leaf(address, before: before, after: after)
    default: return nil
    }
    guard words.isAtEnd else { return nil }
  }
}

extension GuestRun {
  fileprivate init?(_ words: inout Words) {
    let end: End
    switch words.next() {
    case "retired": end = .retired
    case "hung": end = .hung
    case "error":
      guard let error = words.next().flatMap(KernelError.init(named:)) else { return nil }
      end = .failed(error)
    case "exception":
      guard let syndrome = words.field("esr_el1=") else { return nil }
      end = .exception(
        syndrome: syndrome, address: words.field("far_el1=").map(GuestVirtualAddress.init(_:)))
    case "mmio":
      let isWrite = words.skip("write")
      guard isWrite || words.skip("read"), let address = words.number(), words.skip("len"),
        let length = words.decimal()
      else { return nil }
      let data = words.skip("data") ? words.number() : nil
      guard isWrite == (data != nil), let (moved, x0) = Self.state(&words) else { return nil }
      let then = words.skip("then") ? words.number() : nil
      self.init(
        .mmio(
          address: IntermediatePhysicalAddress(address), length: length, data: data, then: then),
        moved: moved, x0: x0)
      return
    case "not":
      guard words.skip("modelled,"), words.skip("instruction"), let word = words.number(),
        let word = UInt32(exactly: word)
      else { return nil }
      end = .notModelled(word)
    default: return nil
    }
    guard let (moved, x0) = Self.state(&words) else { return nil }
    self.init(end, moved: moved, x0: x0)
  }

  private static func state(_ words: inout Words) -> (moved: Int64?, x0: UInt64)? {
    var moved: Int64?
    if words.skip("pc") {
      guard let distance = words.next().flatMap({ Int64($0) }) else { return nil }
      moved = distance
    }
    guard words.skip("x0"), let x0 = words.number() else { return nil }
    return (moved, x0)
  }
}

extension ObservedLeaf {
  fileprivate init?(_ words: inout Words) {
    guard words.skip("level"), let level = words.decimal(),
      let attributes = words.next().flatMap({ UInt64($0, radix: 16) })
    else { return nil }
    let frame = words.wordBehind("@")
    guard words.skip("counts") else { return nil }
    var counts: [Int] = []
    while let count = words.decimal() { counts.append(count) }
    self.init(level: level, attributes: attributes, frame: frame, counts: counts)
  }
}

/// The words of a line. There is one space between two words.
private struct Words {
  private var words: ArraySlice<Substring>

  init(_ line: some StringProtocol) {
    words = Substring(line).split(separator: " ", omittingEmptySubsequences: false)[...]
  }

  var isAtEnd: Bool { words.isEmpty }

  mutating func next() -> Substring? { words.popFirst() }

  mutating func rest() -> String {
    defer { words = [] }
    return words.joined(separator: " ")
  }

  /// Takes the next word if it is `word`.
  mutating func skip(_ word: String) -> Bool {
    guard words.first.map({ $0 == word }) == true else { return false }
    words.removeFirst()
    return true
  }

  /// Takes the next word if it begins with `prefix`, and returns the rest of the word.
  mutating func wordBehind(_ prefix: String) -> String? {
    guard let word = words.first, word.hasPrefix(prefix) else { return nil }
    words.removeFirst()
    return String(word.dropFirst(prefix.count))
  }

  /// Takes a hexadecimal number after `prefix`.
  mutating func field(_ prefix: String) -> UInt64? {
    wordBehind(prefix).flatMap { UInt64($0, radix: 16) }
  }

  /// Takes a hexadecimal number after `0x`.
  mutating func number() -> UInt64? { field("0x") }

  mutating func decimal() -> Int? {
    guard let word = words.first, let number = Int(word) else { return nil }
    words.removeFirst()
    return number
  }
}
