import Scenarios
import Stage2Sim
import VirtWalkerDevice

/// The walk through the current tables to the entry that holds the byte.
struct WalkReport {
  let configuration: VirtualMachine.Configuration
  let startLevel: Int
  /// The entries from the start level to the leaf.
  let path: [TableVisit]
  /// The last hide or seek, as the trace has it.
  let last: EventStream.Entry?

  /// The reason why the guest does not run any more; nil if it runs.
  let stop: GuestStopped?

  init(of engine: any Engine, last: EventStream.Entry?, stop: GuestStopped? = nil) {
    configuration = engine.machine.configuration
    startLevel = engine.view.startLevel
    path = engine.view.path(to: HideSeek.target)
    self.last = last
    self.stop = stop
  }

  /// The last entry of the walk. There is one, because every IPA range has the target.
  var leaf: TableVisit { path[path.count - 1] }

  var entry: Stage2Descriptor { leaf.descriptor }

  var text: String {
    let lines: [[String]] = [
      [heading], stop.map(GuestStop.lines) ?? [], [""], table, [""], picture, [""], fields,
      lastLine,
    ]
    return lines.joined().map { "\($0)\n" }.joined()
  }

  private var heading: String {
    "walk of \(hex(HideSeek.target)): \(configuration.granule) granule, \(configuration.ipaBits)-bit IPA, start level \(startLevel)"
  }

  private var table: [String] {
    ["level  table        index  entry             is"]
      + path.map { visit in
        "\(padded("\(visit.level)", to: 5))  \(hex(visit.table, digits: 10)) \(padded("\(visit.index)", to: 6))  \(visit.descriptor)  \(describe(visit))"
      }
  }

  /// The meaning of an entry in words.
  func describe(_ visit: TableVisit) -> String {
    let granule = configuration.granule
    let address = hex(visit.descriptor.outputAddress(granule))
    if visit.descriptor.isTable(level: visit.level) {
      // The last entry points to a table only if a table was freed in use.
      return visit == leaf ? "a table at \(address), where none is" : "table at \(address)"
    }
    guard visit.descriptor.isValid else {
      return visit.descriptor.rawValue == 0 ? "empty" : "invalid, but not empty"
    }
    let size = granule.size(level: visit.level)
    return
      "\(visit.level == Granule.lastLevel ? "page" : "block") of \(Self.size(size)) at \(address)"
  }

  static func size(_ bytes: UInt64) -> String {
    let (unit, shift): (String, UInt64) =
      bytes >= 1 << 30 ? ("GiB", 30) : bytes >= 1 << 20 ? ("MiB", 20) : ("KiB", 10)
    return "\(bytes >> shift) \(unit)"
  }

  /// The 64 bits of the entry, with a mark below the byte.
  private var picture: [String] {
    let bits = Field.all.map { $0.digits(of: entry) }.joined(separator: " ")
    let byte = entry.hiddenByte
    // The numbers of the first bit and of the last bit of each field. The digits of a number stand one below the other.
    let numbers = [10, 1].map { place in
      let line = Field.all.map { field in
        String(
          (field.low...field.high).reversed().map { bit in
            let isNamed = [field.high, field.low].contains(bit) && (bit >= 10 || place == 1)
            return isNamed ? Character("\(bit / place % 10)") : " "
          })
      }.joined(separator: " ")
      return String(line.reversed().drop { $0 == " " }.reversed())
    }
    return numbers + [
      bits,
      "      ======== hidden byte \(hex(UInt64(byte), digits: 2))\(Self.character(byte))",
    ]
  }

  /// ` 'A'` if the byte is printable ASCII; an empty text otherwise.
  static func character(_ byte: UInt8) -> String {
    (0x20...0x7e).contains(byte) ? " '\(Character(UnicodeScalar(byte)))'" : ""
  }

  /// One line for each field that has a meaning in this entry.
  private var fields: [String] {
    // The CPU ignores all other bits of an entry that is not valid.
    ["field        bits     value   is"]
      + (entry.isValid ? Field.described : [Field.valid]).map { field in
        let value = field.digits(of: entry)
        return
          "\(left(field.name, 12)) \(left(field.place, 8)) \(left(value, 7)) \(field.meaning(entry, leaf.level, configuration))"
      }
  }

  private func left(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(0, width - text.utf8.count))
  }

  private var lastLine: [String] {
    guard let last else { return [] }
    return ["", "last: \(timestamp(last.time)) \(last.event.traceText)"]
  }
}

/// A field of an entry (Arm ARM D8.3, stage-2 block and page descriptors).
struct Field: Sendable {
  let name: String
  /// The numbers of the highest and of the lowest bit.
  let high: Int
  let low: Int
  /// The meaning of the value in words, for an entry at a level.
  let meaning: @Sendable (Stage2Descriptor, Int, VirtualMachine.Configuration) -> String

  init(
    _ name: String, _ high: Int, _ low: Int,
    _ meaning: @escaping @Sendable (Stage2Descriptor, Int, VirtualMachine.Configuration) -> String
  ) {
    self.name = name
    self.high = high
    self.low = low
    self.meaning = meaning
  }

  var place: String { high == low ? "[\(high)]" : "[\(high):\(low)]" }

  func value(of entry: Stage2Descriptor) -> UInt64 {
    entry.rawValue >> UInt64(low) & (1 << UInt64(high - low + 1) - 1)
  }

  func digits(of entry: Stage2Descriptor) -> String {
    let digits = String(value(of: entry), radix: 2)
    return String(repeating: "0", count: high - low + 1 - digits.utf8.count) + digits
  }

  private init(_ name: String, _ high: Int, _ low: Int) {
    self.init(name, high, low) { _, _, _ in "" }
  }

  /// All 64 bits side by side.
  static let all = [
    Field("", 63, 59), Field("byte", 58, 51), Field("", 50, 48), Field("output address", 47, 12),
    Field("", 11, 11), Field("AF", 10, 10), Field("SH", 9, 8), Field("S2AP", 7, 6),
    Field("MemAttr", 5, 2), Field("type", 1, 1), Field("valid", 0, 0),
  ]

  /// The fields that have a meaning here, from the highest bit down.
  static let described: [Field] = [
    Field("software", 58, 55) { entry, _, _ in "ignored by the CPU: bits 4 to 7 of the byte" },
    Field("XN", 54, 53) { entry, _, configuration in execution(entry, configuration.cpu) },
    Field("Contiguous", 52, 52) { entry, _, _ in
      entry.rawValue & Stage2Descriptor.contiguous == 0
        ? "stands alone" : "one of a run that may share a TLB entry"
    },
    Field("DBM", 51, 51) { _, _, _ in "no effect: KVM 6.1 leaves VTCR_EL2.HD clear" },
    Field("AF", 10, 10) { entry, _, _ in
      entry.rawValue & Stage2Descriptor.accessFlag == 0 ? "old: the next access faults" : "accessed"
    },
    Field("SH", 9, 8) { entry, _, _ in
      entry.rawValue & Stage2Descriptor.shareability == Stage2Descriptor.innerShareable
        ? "inner shareable" : "not inner shareable"
    },
    Field("S2AP", 7, 6) { entry, _, _ in
      let read = entry.rawValue & Stage2Descriptor.read != 0
      let write = entry.rawValue & Stage2Descriptor.write != 0
      return ["no access", "write only", "read only", "read and write"][
        (read ? 2 : 0) + (write ? 1 : 0)]
    },
    Field("MemAttr", 5, 2) { entry, _, configuration in
      let hasFWB = configuration.cpu.hasFWB
      let normal: UInt64 = (hasFWB ? 0b0110 : 0b1111) << 2
      let what =
        entry.rawValue & Stage2Descriptor.memoryAttributes == normal
        ? "normal memory, write-back" : "not as KVM maps memory"
      return hasFWB ? "\(what) (FEAT_S2FWB)" : what
    },
    Field("type", 1, 1) { entry, level, _ in
      entry.rawValue & Stage2Descriptor.tableOrPage == 0
        ? "block" : level == Granule.lastLevel ? "page" : "table"
    },
    valid,
  ]

  static let valid = Field("valid", 0, 0) { entry, _, _ in
    entry.isValid
      ? "the CPU uses the entry" : "the next access faults; the CPU ignores all other bits"
  }

  private static func execution(_ entry: Stage2Descriptor, _ cpu: CPUModel) -> String {
    let xn1 = entry.rawValue & Stage2Descriptor.executeNever != 0
    guard cpu.hasXNX else { return xn1 ? "execute-never" : "executable" }
    let xn0 = entry.rawValue & Stage2Descriptor.executeNever0 != 0
    return switch (xn1, xn0) {
    case (false, false): "EL1 and EL0 may execute"
    case (false, true): "EL0 may execute, EL1 may not (FEAT_XNX)"
    case (true, false): "execute-never"
    case (true, true): "EL1 may execute, EL0 may not (FEAT_XNX)"
    }
  }
}
