/// A field of a stage-2 leaf entry (Arm ARM D8.3, stage-2 block and page descriptors).
public struct DescriptorField: Hashable, Sendable {
  /// The name in the Arm ARM, if the field has one there.
  public let name: String
  /// The bits of the field, which stand side by side.
  public let mask: UInt64

  /// A field.
  public init(_ name: String, mask: UInt64) {
    self.name = name
    self.mask = mask
  }

  /// The numbers of the bits in the entry.
  public var bits: ClosedRange<Int> {
    mask.trailingZeroBitCount...63 - mask.leadingZeroBitCount
  }

  /// Bit 0.
  public static let valid = DescriptorField("valid", mask: Stage2Descriptor.valid)
  /// Bit 1.
  public static let type = DescriptorField("type", mask: Stage2Descriptor.tableOrPage)
  /// Bits [5:2].
  public static let memoryAttributes = DescriptorField(
    "MemAttr", mask: Stage2Descriptor.memoryAttributes)
  /// Bits [7:6].
  public static let accessPermissions = DescriptorField(
    "S2AP", mask: Stage2Descriptor.read | Stage2Descriptor.write)
  /// Bits [9:8].
  public static let shareability = DescriptorField("SH", mask: Stage2Descriptor.shareability)
  /// Bit 10.
  public static let accessFlag = DescriptorField("AF", mask: Stage2Descriptor.accessFlag)
  /// Bits [47:12]. With larger pages, the low bits are 0.
  public static let outputAddress = DescriptorField(
    "output address", mask: Granule.kib4.addressMask)
  /// Bit 51.
  public static let dirtyBitModifier = DescriptorField(
    "DBM", mask: Stage2Descriptor.dirtyBitModifier)
  /// Bit 52.
  public static let contiguous = DescriptorField("Contiguous", mask: Stage2Descriptor.contiguous)
  /// Bits [54:53].
  public static let executeNever = DescriptorField(
    "XN", mask: Stage2Descriptor.executeNever | Stage2Descriptor.executeNever0)
  /// Bits [58:55].
  public static let software = DescriptorField("software", mask: Stage2Descriptor.software)

  /// The fields from the highest bit down. Bits that are in no field are reserved, or have no meaning here.
  public static let all = [
    software, executeNever, contiguous, dirtyBitModifier, outputAddress, accessFlag, shareability,
    accessPermissions, memoryAttributes, type, valid,
  ]
}
