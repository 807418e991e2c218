/// The hook that the patched host has in its MMIO path: one byte hidden in, and sought from, bits [58:51] of the
/// stage-2 entry of the first page of guest RAM.
public struct HideSeek: MMIODevice {
  /// Write one byte: it is hidden.
  public static let hideAddress: UInt64 = 0x0b00_0000
  /// Read one byte: the hidden one.
  public static let seekAddress: UInt64 = 0x0b00_0001
  /// The page whose entry holds the byte.
  public static let target: UInt64 = 0x4000_0000

  /// The hook looks at where an access starts, not at where it ends, and claims one address more than it has
  /// registers.
  public static let regions = (hideAddress...hideAddress + 2).map {
    MMIORegion(address: $0, length: 0)
  }

  public static let isHook = true

  /// The hook has no state: the byte is in the entry.
  public init() {}

  public mutating func access(
    _ access: MMIOAccess, from vcpu: inout VCPU, stage2: inout Stage2PageTable
  ) throws(KernelError) -> MMIOResponse {
    stage2.events.emit(.log(.hideSeekDetected(length: access.length)))
    guard access.length == 1 else {
      stage2.events.emit(.log(.hideSeekTooLong))
      throw .invalidArgument
    }
    switch (access.address, access.isWrite) {
    case (Self.hideAddress, true):
      try Self.walk(hiding: UInt8(truncatingIfNeeded: access.data), in: &stage2)
    case (Self.seekAddress, false):
      // Zero-extended whatever the load was: the hook writes the register itself.
      vcpu[access.register] = UInt64(try Self.walk(hiding: nil, in: &stage2))
    default:
      break
    }
    return .done
  }

  /// The hook's walk over a page: hides a byte in the entry that decides over it, or seeks it there.
  ///
  /// - Parameters:
  ///   - byte: Nil to seek.
  ///   - target: A guest physical address of the page.
  ///   - stage2: The table.
  /// - Returns: The byte in the entry afterwards.
  /// - Throws: `EFAULT` where the walk comes to no entry.
  @discardableResult
  public static func walk(
    hiding byte: UInt8?, at target: UInt64 = target, in stage2: inout Stage2PageTable
  ) throws(KernelError) -> UInt8 {
    var visitor = HideSeekVisitor(hiding: byte, target: target)
    do {
      try stage2.walk(address: target, size: stage2.granule.pageSize, visitor: &visitor)
    } catch {
      throw .badAddress
    }
    guard let byte = visitor.byte else { throw .badAddress }
    return byte
  }
}

/// Hides a byte in the target's leaf, or seeks it there: whatever the leaf's level, and valid or not.
private struct HideSeekVisitor: Stage2Visitor {
  static let flags = WalkFlags.leaf
  static let isTraced = true

  /// Nil to seek.
  let hiding: UInt8?
  let target: UInt64
  /// What the leaf holds, once it was visited.
  var byte: UInt8?

  init(hiding: UInt8?, target: UInt64) {
    self.hiding = hiding
    self.target = target
  }

  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) {
    guard visit.address == target else { return }
    let old = table[visit.entry]
    if let hiding { table[visit.entry].hiddenByte = hiding }
    let new = table[visit.entry]
    byte = new.hiddenByte
    if let hiding {
      table.events.emit(.hide(hiding, old: old, new: new))
    } else {
      table.events.emit(.seek(new.hiddenByte, new))
    }
  }
}

extension Stage2Descriptor {
  /// Bits [58:51]: DBM, Contiguous, XN[1:0] and the four software bits.
  public var hiddenByte: UInt8 {
    get { UInt8(truncatingIfNeeded: rawValue >> 51) }
    set { rawValue = rawValue & ~(0xff << 51) | UInt64(newValue) << 51 }
  }
}
