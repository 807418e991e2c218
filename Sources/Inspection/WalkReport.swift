import Scenarios
import Stage2Sim
import VirtWalkerDevice

/// The walk through the current tables to the entry that holds the byte.
struct WalkReport {
  let configuration: VirtualMachine.Configuration
  let startLevel: Int
  /// The guest physical address of the walk.
  var address = HideSeek.target
  /// The entries from the start level to the leaf.
  let path: [TableVisit]
  /// The last hide or seek, and its time.
  let last: (time: UInt64, event: HookEvent)?

  /// The reason why the guest does not run any more; nil if it runs.
  let stop: GuestStopped?

  init(
    configuration: VirtualMachine.Configuration, startLevel: Int,
    address: IntermediatePhysicalAddress, path: [TableVisit],
    last: (time: UInt64, event: HookEvent)?,
    stop: GuestStopped?
  ) {
    self.configuration = configuration
    self.startLevel = startLevel
    self.address = address
    self.path = path
    self.last = last
    self.stop = stop
  }

  init(of engine: any Engine, last: (time: UInt64, event: HookEvent)?, stop: GuestStopped? = nil) {
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
    "walk of \(hex(address)): \(configuration.granule) granule, \(configuration.ipaBits)-bit IPA, start level \(startLevel)"
  }

  private var table: [String] {
    ["level  table        index  entry             is"]
      + path.map { visit in
        "\(padded("\(visit.level)", to: 5))  \(hex(visit.table, digits: 10)) \(padded("\(visit.index)", to: 6))  \(visit.descriptor)  \(describe(visit))"
      }
  }

  /// The meaning of an entry in words.
  func describe(_ visit: TableVisit) -> String {
    Self.describe(visit, isLast: visit == leaf, granule: configuration.granule)
  }

  /// The meaning of an entry in words.
  ///
  /// - Parameters:
  ///   - visit: The entry.
  ///   - isLast: Whether the walk ends at the entry.
  ///   - granule: The granule of the table.
  static func describe(_ visit: TableVisit, isLast: Bool, granule: Granule) -> String {
    let address = hex(visit.descriptor.outputAddress(granule))
    if visit.descriptor.isTable(level: visit.level) {
      // The last entry points to a table only if a table was freed in use.
      return isLast ? "a table at \(address), where none is" : "table at \(address)"
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
    let fields = DescriptorField.sideBySide
    let bits = fields.map { $0.digits(of: entry) }.joined(separator: " ")
    let byte = entry.hiddenByte
    // The numbers of the first bit and of the last bit of each field. The digits of a number stand one below the other.
    let numbers = [10, 1].map { place in
      let line = fields.map { field in
        String(
          field.bits.reversed().map { bit in
            let isEnd = bit == field.bits.upperBound || bit == field.bits.lowerBound
            let isNamed = isEnd && (bit >= 10 || place == 1)
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
      + (entry.isValid ? DescribedField.all : [.valid]).map { described in
        let field = described.field
        return
          "\(left(field.name, 12)) \(left(field.place, 8)) \(left(field.digits(of: entry), 7)) \(described.meaning(entry, leaf.level, configuration))"
      }
  }

  private func left(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(0, width - text.utf8.count))
  }

  private var lastLine: [String] {
    guard let last else { return [] }
    return ["", "last: \(timestamp(last.time)) \(MachineEvent.hook(last.event).traceText)"]
  }
}

extension DescriptorField {
  var place: String {
    bits.count == 1 ? "[\(bits.lowerBound)]" : "[\(bits.upperBound):\(bits.lowerBound)]"
  }

  func digits(of entry: Stage2Descriptor) -> String {
    let digits = String((entry.rawValue & mask) >> UInt64(bits.lowerBound), radix: 2)
    return String(repeating: "0", count: bits.count - digits.utf8.count) + digits
  }

  /// The hidden byte.
  static let byte = DescriptorField("byte", mask: 0xff << UInt64(HiddenBit.shift))

  /// All 64 bits side by side: the byte, the other fields, and the bits between fields without a name.
  static let sideBySide = withoutGaps([byte] + all.filter { $0.mask & byte.mask == 0 })

  /// Fields in their order from the highest bit down, and the bits between them as fields without a name.
  static func withoutGaps(_ named: [DescriptorField]) -> [DescriptorField] {
    var fields: [DescriptorField] = []
    var end = 64
    func addBits(downTo bit: Int) {
      guard bit < end else { return }
      fields.append(DescriptorField("", mask: (.max >> UInt64(64 - end + bit)) << UInt64(bit)))
    }
    for field in named {
      addBits(downTo: field.bits.upperBound + 1)
      fields.append(field)
      end = field.bits.lowerBound
    }
    addBits(downTo: 0)
    return fields
  }
}

/// A field of an entry with its meaning.
struct DescribedField: Sendable {
  let field: DescriptorField
  /// The meaning of the field's value in words, for an entry at a level.
  let meaning: @Sendable (Stage2Descriptor, Int, VirtualMachine.Configuration) -> String

  private init(
    _ field: DescriptorField,
    _ meaning: @escaping @Sendable (Stage2Descriptor, Int, VirtualMachine.Configuration) -> String
  ) {
    self.field = field
    self.meaning = meaning
  }

  /// The fields that have a meaning here, from the highest bit down.
  static let all: [DescribedField] = [
    DescribedField(.software) { entry, _, _ in "ignored by the CPU: bits 4 to 7 of the byte" },
    DescribedField(.executeNever) { entry, _, configuration in execution(entry, configuration.cpu)
    },
    DescribedField(.contiguous) { entry, _, _ in
      entry.rawValue & Stage2Descriptor.contiguous == 0
        ? "stands alone" : "one of a run that may share a TLB entry"
    },
    DescribedField(.dirtyBitModifier) { _, _, configuration in
      "no effect: KVM \(configuration.kernel.rawValue) leaves VTCR_EL2.HD clear"
    },
    DescribedField(.accessFlag) { entry, _, _ in
      entry.rawValue & Stage2Descriptor.accessFlag == 0 ? "old: the next access faults" : "accessed"
    },
    DescribedField(.shareability) { entry, _, _ in
      entry.rawValue & Stage2Descriptor.shareability == Stage2Descriptor.innerShareable
        ? "inner shareable" : "not inner shareable"
    },
    DescribedField(.accessPermissions) { entry, _, _ in
      let read = entry.rawValue & Stage2Descriptor.read != 0
      let write = entry.rawValue & Stage2Descriptor.write != 0
      return ["no access", "write only", "read only", "read and write"][
        (read ? 2 : 0) + (write ? 1 : 0)]
    },
    DescribedField(.memoryAttributes) { entry, _, configuration in
      let hasFWB = configuration.cpu.hasFWB
      let normal: UInt64 = (hasFWB ? 0b0110 : 0b1111) << 2
      let what =
        entry.rawValue & Stage2Descriptor.memoryAttributes == normal
        ? "normal memory, write-back" : "not as KVM maps memory"
      return hasFWB ? "\(what) (FEAT_S2FWB)" : what
    },
    DescribedField(.type) { entry, level, _ in
      entry.rawValue & Stage2Descriptor.tableOrPage == 0
        ? "block" : level == Granule.lastLevel ? "page" : "table"
    },
    valid,
  ]

  static let valid = DescribedField(.valid) { entry, _, _ in
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

extension StepTracer {
  /// The text of the file `walk` of the inspection tree, for an address at a stop.
  ///
  /// - Parameters:
  ///   - address: The guest physical address.
  ///   - state: The tables at the stop.
  public func walkText(of address: IntermediatePhysicalAddress, in state: TableState) -> String {
    let path = state.path(to: address)
    guard !path.isEmpty else { return "\(hex(address)) is beyond the guest's address space\n" }
    return WalkReport(
      configuration: engine.machine.configuration, startLevel: engine.view.startLevel,
      address: address.aligned(to: engine.machine.configuration.granule.pageSize), path: path,
      last: nil, stop: nil
    ).text
  }
}
