import Stage2Sim

/// The machine of a scenario, which the first line describes.
public struct MachineDescription: Hashable, Sendable {
  /// The machine without the address of the instruction.
  public var configuration = VirtualMachine.Configuration(
    backing: .anonymous, memorySize: 64 << 20)
  /// The guest physical address at which the instruction of a step stands (`code=`).
  public var code = MachineDescription.codeSlot

  /// The guest physical address at which guest RAM begins.
  public static let memoryBase = VirtualMachine.Configuration.memoryBase
  /// The address of the slot for the instruction of a step. Guest RAM ends below it.
  public static let codeSlot: IntermediatePhysicalAddress = 0x8000_0000
  /// The sizes of guest RAM that the language has, in MiB.
  public static let memoryRange: ClosedRange<UInt64> = 4...(codeSlot - memoryBase) >> 20

  /// The machine of a line without a value.
  public init() {}

  /// A machine with a configuration, and with the usual address of the instruction.
  public init(_ configuration: VirtualMachine.Configuration) { self.configuration = configuration }

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
    } while !parser.isAtEnd
    // The other values depend on the version of the kernel.
    for key in Key.allCases {
      if let word = values[key] { try set(key, to: word, parser) }
    }
    try check(values, parser)
  }

  private enum Key: String, CaseIterable {
    case kernel, cpu, granule, ipa, backing, memory
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
    case .kernel: configuration.kernel = try choice(of: KernelVersion.allCases)
    case .cpu: configuration.cpu = try choice(of: CPUModel.allCases)
    case .granule:
      guard let found = Granule(value.text) else {
        throw parser.error(at: value, expected: alternatives(Granule.allCases.map(\.description)))
      }
      configuration.granule = found
    case .ipa:
      let range = configuration.kernel.ipaSizes
      configuration.ipaBits = try Int(
        parser.decimal(
          value, "a number of bits", in: UInt64(range.lowerBound)...UInt64(range.upperBound)))
    case .backing: configuration.backing = try choice(of: Backing.allCases)
    case .memory:
      let expected = "MiB with an M"
      let range = Self.memoryRange
      guard value.text.hasSuffix("M") else {
        throw parser.error(
          at: value, expected: "\(range.lowerBound)M to \(range.upperBound)M")
      }
      let digits = value.part(from: 0, count: value.text.utf8.count - 1)
      configuration.memorySize = try parser.decimal(digits, expected, in: range) << 20
    case .dirtyLog:
      configuration.dirtyLogProtection = try choice(
        of: DirtyLogProtection.allCases.filter { $0 != .automatic })
    case .code: code = IntermediatePhysicalAddress(try parser.number(value, "an address"))
    }
  }

  /// Checks the values that depend on more than one word.
  private func check(
    _ values: [Key: LineParser.Word], _ parser: LineParser
  ) throws(ScenarioError) {
    let cpu = configuration.cpu
    if let word = values[.ipa], configuration.ipaBits > cpu.physicalAddressBits {
      throw parser.error(
        at: word, expected: "at most the \(cpu.physicalAddressBits) bits of \(cpu.rawValue)")
    }
    if let word = values[.code],
      !code.isAligned(to: 4) || !codeRanges.contains(where: { $0 ~= code })
    {
      let ranges = codeRanges.map { "\(address($0.lowerBound)) to \(address($0.upperBound))" }
      throw parser.error(at: word, expected: "a multiple of 4 in \(alternatives(ranges))")
    }
  }

  /// The addresses with room for the instruction and the store after it: in RAM, and below the recorder's exception vectors.
  private var codeRanges: [ClosedRange<IntermediatePhysicalAddress>] {
    [
      Self.memoryBase...Self.memoryBase + configuration.memorySize - 8,
      Self.codeSlot...Self.codeSlot + 0x7f8,
    ]
  }
}

extension MachineDescription: CustomStringConvertible {
  /// The line. It has cpu, backing and memory, and the other values that are not the default.
  public var description: String {
    let machine = configuration
    let usual = MachineDescription().configuration
    var words = ["machine"]
    if machine.kernel != usual.kernel { words.append("kernel=\(machine.kernel.rawValue)") }
    words.append("cpu=\(machine.cpu.rawValue)")
    if machine.granule != usual.granule { words.append("granule=\(machine.granule)") }
    if machine.ipaBits != usual.ipaBits { words.append("ipa=\(machine.ipaBits)") }
    words.append("backing=\(machine.backing.rawValue)")
    words.append("memory=\(machine.memorySize >> 20)M")
    if machine.dirtyLogProtection != usual.dirtyLogProtection {
      words.append("dirty-log=\(machine.dirtyLogProtection.rawValue)")
    }
    if code != MachineDescription().code { words.append("code=\(address(code))") }
    return words.joined(separator: " ")
  }
}
