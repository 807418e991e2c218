import Scenarios
import Stage2Sim
import VirtWalkerDevice

/// A register, an entry or an address of 64 bits, whose fields have a meaning in words.
package struct DecodedWord: Hashable, Sendable {
  /// A field.
  package struct Field: Hashable, Sendable {
    /// The name; empty for bits without a name.
    package let name: String
    /// The numbers of the bits.
    package let bits: ClosedRange<Int>
    /// Whether the bits are some of the hidden byte.
    package let isOfByte: Bool
    /// The meaning of the value in words; empty if it has none here.
    package let meaning: String
  }

  /// The word.
  package let value: UInt64
  /// The meaning of the whole word.
  package let summary: String
  /// The fields from the highest bit down, without a gap.
  package let fields: [Field]
}

// MARK: - Entries

extension DecodedWord {
  /// Decodes an entry.
  ///
  /// - Parameters:
  ///   - visit: The entry and its place.
  ///   - isLast: Whether the walk ends at the entry.
  ///   - configuration: The machine.
  package init(
    _ visit: TableVisit, isLast: Bool, on configuration: VirtualMachine.Configuration
  ) {
    let entry = visit.descriptor
    value = entry.rawValue
    let what = WalkReport.describe(visit, isLast: isLast, granule: configuration.granule)
    let isTable = entry.isTable(level: visit.level)
    // The entry holds a byte only if the walk of the hook ends here.
    summary =
      isTable || entry.rawValue == 0
      ? what
      : "\(what), hidden byte \(hex(UInt64(entry.hiddenByte), digits: 2))\(WalkReport.character(entry.hiddenByte))"
    fields = DescriptorField.allBits.map { field in
      Field(
        name: field.name, bits: field.bits,
        isOfByte: !isTable && field.mask & ~DescriptorField.byte.mask == 0,
        meaning: Self.meaning(of: field, in: visit, what, configuration))
    }
  }

  private static func meaning(
    of field: DescriptorField, in visit: TableVisit, _ what: String,
    _ configuration: VirtualMachine.Configuration
  ) -> String {
    let entry = visit.descriptor
    // The CPU ignores all other bits of an entry that is not valid.
    guard entry.isValid || field == .valid else { return "" }
    if field == .outputAddress { return what }
    let isTable = entry.isTable(level: visit.level)
    guard !isTable || field == .valid || field == .type else { return "" }
    return DescribedField.all.first { $0.field == field }?.meaning(
      entry, visit.level, configuration) ?? ""
  }
}

extension DescriptorField {
  /// The fields of an entry, and the bits between them.
  fileprivate static let allBits = withoutGaps(all)
}

// MARK: - The registers of an abort

extension DecodedWord {
  private init(
    _ value: UInt64, _ summary: String, _ fields: [RegisterField],
    _ meaning: (RegisterField) -> String
  ) {
    self.value = value
    self.summary = summary
    self.fields = fields.map {
      Field(name: $0.name, bits: $0.bits, isOfByte: false, meaning: meaning($0))
    }
  }

  /// Decodes ESR_EL2 of an abort.
  package init(_ syndrome: ExceptionSyndrome) {
    let isInstruction = syndrome.isInstructionAbort
    self.init(
      syndrome.rawValue,
      "\(isInstruction ? "instruction abort" : "data abort"), \(syndrome.statusWords), level \(syndrome.faultLevel)",
      isInstruction ? RegisterField.instructionAbort : RegisterField.dataAbort
    ) { syndrome.meaning(of: $0) }
  }

  /// Decodes FAR_EL2.
  package init(far: GuestVirtualAddress) {
    self.init(
      far.rawValue, "the guest's virtual address of the access", [RegisterField("VA", 0...63)]
    ) { _ in hex(far.rawValue) }
  }

  /// Decodes HPFAR_EL2.
  package init(hpfar: UInt64, of fault: FaultInfo) {
    self.init(
      hpfar, "the page of guest physical address \(hex(fault.pageAddress))",
      RegisterField.faultingPage
    ) { field in
      switch field.name {
      case "FIPA": "bits [47:12] of the address: \(hex(fault.pageAddress))"
      case "NS": "not in Secure state"
      default: ""
      }
    }
  }

  /// Decodes a guest physical address as a walk uses it.
  ///
  /// - Parameters:
  ///   - address: The address.
  ///   - path: The walk.
  ///   - configuration: The machine.
  package init(
    _ address: IntermediatePhysicalAddress, walked path: [TableVisit],
    on configuration: VirtualMachine.Configuration
  ) {
    let granule = configuration.granule
    var fields: [Field] = []
    var end = configuration.ipaBits - 1
    for visit in path {
      let shift = granule.shift(level: visit.level)
      guard shift <= end else { continue }
      let field = RegisterField("level \(visit.level)", shift...end)
      fields.append(
        Field(
          name: field.name, bits: field.bits, isOfByte: false,
          meaning: "index \(field.value(in: address.rawValue))"))
      end = shift - 1
    }
    let offset = RegisterField("offset", 0...end)
    let size = path.last.map { granule.size(level: $0.level) } ?? granule.pageSize
    fields.append(
      Field(
        name: offset.name, bits: offset.bits, isOfByte: false,
        meaning:
          "byte \(hex(offset.value(in: address.rawValue))) of \(WalkReport.size(size))"))
    value = address.rawValue
    summary = hex(address)
    self.fields = fields
  }
}

extension ExceptionSyndrome {
  /// The meaning of a field in words.
  fileprivate func meaning(of field: RegisterField) -> String {
    let value = field.value(in: rawValue)
    let isSet = value != 0
    switch field.name {
    case "EC":
      return
        "\(isInstructionAbort ? "instruction abort" : "data abort") from a lower exception level"
    case "IL": return isSet ? "an instruction of 32 bits" : "an instruction of 16 bits"
    case "ISV":
      return isSet ? "the next fields describe the access" : "no description of the access"
    case "DFSC", "IFSC": return "\(statusWords), level \(faultLevel)"
    case "WnR": return isSet ? "write" : "read"
    case "S1PTW": return isSet ? "in a walk of stage 1" : "not in a walk of stage 1"
    case "CM": return isSet ? "cache maintenance" : "no cache maintenance"
    case "EA": return isSet ? "external abort" : "no external abort"
    case "FnV": return isSet ? "FAR is not valid" : "FAR is valid"
    case "SAS", "SSE", "SRT", "SF", "AR": return isValid ? accessMeaning(of: field, isSet) : ""
    default: return ""
    }
  }

  private func accessMeaning(of field: RegisterField, _ isSet: Bool) -> String {
    switch field.name {
    case "SAS": accessSize == 1 ? "1 byte" : "\(accessSize) bytes"
    case "SSE": isSet ? "the load extends the sign" : "no sign extension"
    case "SRT": register == 31 ? "the zero register" : "register \(register)"
    case "SF": isSet ? "a register of 64 bits" : "a register of 32 bits"
    default: isSet ? "acquire or release" : "no acquire, no release"
    }
  }
}
