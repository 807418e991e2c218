import Stage2Sim

/// One of the bits 51 to 58 of a stage-2 entry, which hold the hidden byte.
public struct HiddenBit: Hashable, Sendable, CaseIterable {
  /// The number of the bit in the byte, 0 to 7.
  public let number: Int

  public static let allCases = (0..<8).map(HiddenBit.init)

  private init(number: Int) { self.number = number }

  /// The number of the bit in the entry, 51 to 58.
  public var entryBit: Int { number + Self.shift }

  /// The number of the first bit of the byte in the entry.
  @inlinable
  public static var shift: Int { 51 }

  private var mask: UInt64 { 1 << UInt64(entryBit) }

  /// Whether the bit is set in an entry.
  public func isSet(in descriptor: Stage2Descriptor) -> Bool { descriptor.rawValue & mask != 0 }

  /// The name of the field in the Arm ARM; `sw55` to `sw58` for the bits that the architecture leaves to software.
  public var field: String {
    guard let field = DescriptorField.all.first(where: { $0.mask & mask != 0 }),
      field != .software
    else { return "sw\(entryBit)" }
    return field.mask == mask ? field.name : "\(field.name)[\(entryBit - field.bits.lowerBound)]"
  }

  /// The meaning of the bit to the CPU and to KVM, in at most 67 characters.
  public func meaning(on machine: VirtualMachine.Configuration) -> String {
    switch mask {
    case Stage2Descriptor.dirtyBitModifier:
      "dirty bit modifier: no effect, KVM \(machine.kernel.rawValue) leaves VTCR_EL2.HD clear"
    case Stage2Descriptor.contiguous:
      "hint: one of a run of entries that may share one TLB entry"
    case Stage2Descriptor.executeNever0:
      machine.cpu.hasXNX
        ? "EL1 may execute where XN[0] = XN[1] (FEAT_XNX); KVM ignores it"
        : "RES0: this CPU has no FEAT_XNX"
    case Stage2Descriptor.executeNever:
      machine.cpu.hasXNX
        ? "EL1 may execute where XN[1] = XN[0] (FEAT_XNX); KVM clears it alone"
        : "execute-never; KVM clears it when the guest executes"
    default: "left to software; KVM uses none in a guest's entries"
    }
  }
}
