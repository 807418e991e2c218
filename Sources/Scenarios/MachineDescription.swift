import Stage2Sim

/// The machine of a scenario: what its first line says.
public struct MachineDescription: Hashable, Sendable {
  /// The host's CPU (`cpu=`).
  public var cpu = CPUModel.cortexA76
  /// The host's page size, and the guest's stage-2 granule.
  public var granule = Granule.kib4
  /// Bits of the intermediate physical address.
  public var ipaBits = 40
  /// Guest RAM in bytes, at ``memoryBase``.
  public var memory: UInt64 = 64 << 20
  /// What the VMM maps guest RAM with (`backing=`).
  public var backing = Backing.anonymous
  /// Who clears the dirty log (`dirty-log=`).
  public var dirtyLog = DirtyLogProtection.automatic
  /// Where the instruction of a step stands.
  public var code = MachineDescription.codeSlot

  /// Where guest RAM begins.
  public static let memoryBase = VirtualMachine.Configuration.memoryBase
  /// The slot for the instruction of a step. It bounds guest RAM.
  public static let codeSlot: UInt64 = 0x8000_0000
  /// What KVM takes (`KVM_VM_TYPE_ARM_IPA_SIZE`), as far as the CPU has as many.
  public static let ipaBitsRange = 32...48
  /// What ``memory`` may be, in MiB.
  public static let memoryRange: ClosedRange<UInt64> = 4...(codeSlot - memoryBase) >> 20

  /// The machine of a line that says nothing of it.
  public init() {}

  /// Reads a line such as `machine cpu=cortex-a72 memory=64M`.
  ///
  /// - Parameters:
  ///   - text: The line without its newline.
  ///   - line: Its number, for an error.
  public init(parsing text: some StringProtocol, line: Int = 1) throws(ScenarioError) {
    var parser = try LineParser(text, line: line)
    let first = try parser.word("machine")
    guard first.text == "machine" else { throw parser.error(at: first, expected: "machine") }
    var values: [Key: LineParser.Word] = [:]
    // The recorder wants one word at least.
    repeat {
      let (key, value) = try Key.parse(&parser)
      guard values.updateValue(value.word, forKey: key) == nil else {
        throw parser.error(at: value.column, "\(key.rawValue)= stands here a second time")
      }
      try set(key, to: value.word, parser)
    } while !parser.isAtEnd
    try check(values, parser)
  }

  private enum Key: String, CaseIterable {
    case cpu, granule, ipa, backing, memory
    case dirtyLog = "dirty-log"
    case code

    /// The next word of the line, and its column.
    static func parse(
      _ parser: inout LineParser
    ) throws(ScenarioError) -> (Key, (word: LineParser.Word, column: Int)) {
      let expected = alternatives(allCases.map { "\($0.rawValue)=" })
      let word = try parser.word(expected)
      guard let sign = word.text.utf8.firstIndex(of: UInt8(ascii: "=")),
        let key = Key(rawValue: String(word.text[..<sign]))
      else { throw parser.error(at: word, expected: expected) }
      return (key, (word.part(from: key.rawValue.utf8.count + 1), word.column))
    }
  }

  private mutating func set(
    _ key: Key, to value: LineParser.Word, _ parser: LineParser
  ) throws(ScenarioError) {
    func choice<Value: CaseIterable & RawRepresentable<String>>(
      of cases: [Value]
    ) throws(ScenarioError) -> Value {
      guard let found = cases.first(where: { $0.rawValue == value.text }) else {
        throw parser.error(at: value, expected: alternatives(cases.map(\.rawValue)))
      }
      return found
    }
    switch key {
    case .cpu: cpu = try choice(of: CPUModel.allCases)
    case .granule:
      guard let found = Granule(value.text) else {
        throw parser.error(
          at: value, expected: alternatives(Granule.allCases.map(\.description)))
      }
      granule = found
    case .ipa:
      let range = Self.ipaBitsRange
      ipaBits = try Int(
        parser.decimal(
          value, "a number of bits", in: UInt64(range.lowerBound)...UInt64(range.upperBound)))
    case .backing: backing = try choice(of: Backing.allCases)
    case .memory:
      let expected = "MiB with an M"
      let range = Self.memoryRange
      guard value.text.hasSuffix("M") else {
        throw parser.error(
          at: value, expected: "\(range.lowerBound)M to \(range.upperBound)M")
      }
      let digits = value.part(from: 0, count: value.text.utf8.count - 1)
      memory = try parser.decimal(digits, expected, in: range) << 20
    case .dirtyLog:
      dirtyLog = try choice(of: DirtyLogProtection.allCases.filter { $0 != .automatic })
    case .code: code = try parser.number(value, "an address")
    }
  }

  /// What depends on more than one word.
  private func check(
    _ values: [Key: LineParser.Word], _ parser: LineParser
  ) throws(ScenarioError) {
    if let word = values[.ipa], ipaBits > cpu.physicalAddressBits {
      throw parser.error(
        at: word, expected: "at most the \(cpu.physicalAddressBits) bits of \(cpu.rawValue)")
    }
    if let word = values[.code], code % 4 != 0 || !codeRanges.contains(where: { $0 ~= code }) {
      let ranges = codeRanges.map { "\(address($0.lowerBound)) to \(address($0.upperBound))" }
      throw parser.error(at: word, expected: "a multiple of 4 in \(alternatives(ranges))")
    }
  }

  /// Where the instruction and the store behind it have room: in RAM, and below the recorder's exception vectors.
  private var codeRanges: [ClosedRange<UInt64>] {
    [Self.memoryBase...Self.memoryBase + memory - 8, Self.codeSlot...Self.codeSlot + 0x7f8]
  }
}

extension MachineDescription: CustomStringConvertible {
  /// The line. It says cpu, backing and memory, and of the rest what is not the default.
  public var description: String {
    let usual = MachineDescription()
    var words = ["machine", "cpu=\(cpu.rawValue)"]
    if granule != usual.granule { words.append("granule=\(granule)") }
    if ipaBits != usual.ipaBits { words.append("ipa=\(ipaBits)") }
    words.append("backing=\(backing.rawValue)")
    words.append("memory=\(memory >> 20)M")
    if dirtyLog != usual.dirtyLog { words.append("dirty-log=\(dirtyLog.rawValue)") }
    if code != usual.code { words.append("code=\(address(code))") }
    return words.joined(separator: " ")
  }
}
