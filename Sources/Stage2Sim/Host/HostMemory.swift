/// How the host backs guest RAM.
public enum Backing: String, CaseIterable, Sendable {
  /// Transparent huge pages, already there when the guest touches them, as with QEMU's `prealloc=on`: KVM maps 2 MiB
  /// blocks.
  case huge
  /// Anonymous 4 KiB pages, made when they are first touched: KVM maps pages.
  case anonymous
  /// Huge pages of hugetlbfs.
  case hugetlb
  /// Shared pages of a memfd.
  case memfd
  /// A private mapping of a file.
  case file
}

/// What the VMM's page tables say of one page of its memory.
public struct HostMapping: Hashable, Sendable {
  /// Physical address of the frame, or of the huge page's first one.
  public internal(set) var frame: UInt64
  /// False for the shared zero page, until a write makes a private copy.
  public internal(set) var isWritable: Bool
  /// 4 KiB, or 2 MiB for a transparent huge page.
  public let size: UInt64
}

/// The VMM's anonymous memory: which frame stands behind which virtual address, and what is in it.
struct HostMemory: Sendable {
  static let pageSize: UInt64 = 4 << 10
  static let hugePageSize: UInt64 = 2 << 20

  let backing: Backing
  /// Of pages or huge pages, by virtual address.
  private var mappings: [UInt64: HostMapping] = [:]
  /// Of 4 KiB frames, by physical address; one that was never written is all zeros.
  private var contents: [UInt64: [UInt8]] = [:]
  /// Frame 0 of the range is the zero page: the others follow it, huge ones aligned.
  private static let zeroPage: UInt64 = 0x2_0000_0000
  private var nextFrame = HostMemory.zeroPage + HostMemory.hugePageSize

  init(backing: Backing) { self.backing = backing }

  /// The size of what `backing` maps at once.
  private var mappingSize: UInt64 {
    switch backing {
    case .huge, .hugetlb: Self.hugePageSize
    case .anonymous, .memfd, .file: Self.pageSize
    }
  }

  private mutating func allocateFrame() -> UInt64 {
    let frame = nextFrame
    nextFrame += mappingSize
    return frame
  }

  /// What a touch of `virtual` found or made.
  struct Touch {
    let mapping: HostMapping
    /// The touch replaced a page that was mapped before: MMU notifiers have to hear of it.
    let didCopyOnWrite: Bool
  }

  /// A read or a write of the VMM's memory at `virtual`, by the VMM or by `get_user_pages` on behalf of the guest.
  mutating func touch(_ virtual: UInt64, isWrite: Bool) -> Touch {
    let key = virtual & ~(mappingSize - 1)
    if let mapping = mappings[key] {
      guard isWrite, !mapping.isWritable else {
        return Touch(mapping: mapping, didCopyOnWrite: false)
      }
      let copy = HostMapping(frame: allocateFrame(), isWritable: true, size: mappingSize)
      mappings[key] = copy
      return Touch(mapping: copy, didCopyOnWrite: true)
    }
    let isPrivate = isWrite || backing == .huge
    let mapping = HostMapping(
      frame: isPrivate ? allocateFrame() : Self.zeroPage, isWritable: isPrivate, size: mappingSize)
    mappings[key] = mapping
    return Touch(mapping: mapping, didCopyOnWrite: false)
  }

  /// The `count` (1 to 8) bytes at `physical`, little-endian.
  func load(_ physical: UInt64, count: Int) -> UInt64 {
    guard let frame = contents[physical & ~(Self.pageSize - 1)] else { return 0 }
    let offset = Int(physical & (Self.pageSize - 1))
    return frame[offset..<offset + count].reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }

  /// Puts the low `count` (1 to 8) bytes of `value` at `physical`, little-endian.
  mutating func store(_ value: UInt64, to physical: UInt64, count: Int) {
    let offset = Int(physical & (Self.pageSize - 1))
    let frame = physical & ~(Self.pageSize - 1)
    var bytes =
      contents.removeValue(forKey: frame) ?? Array(repeating: 0, count: Int(Self.pageSize))
    for index in 0..<count {
      bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index))
    }
    contents[frame] = bytes
  }
}
