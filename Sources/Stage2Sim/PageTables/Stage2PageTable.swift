/// A stage-2 translation table: `struct kvm_pgtable` (arch/arm64/include/asm/kvm_pgtable.h).
///
/// There is one generic walk, and every operation is a small visitor, as in arch/arm64/kvm/hyp/pgtable.c.
public struct Stage2PageTable {
  // The order keeps the structure small: a benchmark of `leaf` whose structure was five words larger took twice as long, because each
  // call copied the structure.

  /// The size of its pages, which are also its tables'.
  public let granule: Granule
  /// The size of the intermediate physical address in bits.
  public let ipaBits: Int
  /// The version of the kernel whose table it is.
  public let kernel: KernelVersion
  /// FEAT_S2FWB: the memory attributes are other ones, and caches need no cleaning (`stage2_has_fwb`).
  public let hasFWB: Bool
  /// FEAT_XNX: XN[0] means something.
  public let hasXNX: Bool
  /// FEAT_TLBIRANGE: one instruction invalidates the TLB entries of a range (`system_supports_tlb_range`).
  public let hasTLBRange: Bool
  private let has52Bits: Bool
  /// The place of an address in an entry.
  @usableFromInline let addressFormat: OutputAddressFormat
  /// ``KernelVersion/rereadsEntries``
  @usableFromInline let rereadsEntries: Bool
  /// The level at which a walk starts.
  public let startLevel: Int
  /// The entries, and the physical memory they stand in.
  public internal(set) var memory: TableMemory
  /// The first of the concatenated start tables (`pgd`).
  @usableFromInline let root: EntryReference
  /// The receiver of each event, such as a TLB invalidation that the table's owner issues. A copy of the table has the same
  /// observer.
  public var observer: (any MachineObserver)? {
    get { events.observer }
    set { events.observer = newValue }
  }
  /// The stream that the table's events go to. A copy of the table has the same stream.
  public var stream: EventStream? {
    get { events.stream }
    set { events.stream = newValue }
  }
  /// The way into the stream.
  @usableFromInline var events = EventSink()

  /// An empty table (`__kvm_pgtable_stage2_init`).
  ///
  /// The start level is the one that needs at most 16 concatenated tables, as `kvm_get_vtcr` picks it: for 40 bits
  /// with 4 KiB pages level 1 and two tables.
  ///
  /// - Parameters:
  ///   - granule: The size of pages and tables.
  ///   - ipaBits: One of ``KernelVersion/ipaSizes``, and no more than `physicalAddressBits`.
  ///   - hasFWB: The CPU has FEAT_S2FWB.
  ///   - hasXNX: The CPU has FEAT_XNX.
  ///   - hasTLBRange: The CPU has FEAT_TLBIRANGE.
  ///   - physicalAddressBits: 52 if the CPU has FEAT_LPA2, or FEAT_LPA for pages of 64 KiB; 48 otherwise. Versions 5.10 and 6.1
  ///     have 48.
  ///   - kernel: The version of the kernel.
  ///   - source: The origin of the memory of the tables, if another process shares it.
  public init(
    granule: Granule = .kib4, ipaBits: Int = 40, hasFWB: Bool = false, hasXNX: Bool = true,
    hasTLBRange: Bool = false, physicalAddressBits: Int = 48,
    kernel: KernelVersion = .standard, source: TableSource? = nil
  ) {
    precondition(
      kernel.ipaSizes.contains(ipaBits),
      "an IPA has \(kernel.ipaSizes.lowerBound) to \(kernel.ipaSizes.upperBound) bits, not \(ipaBits)"
    )
    self.kernel = kernel
    self.granule = granule
    self.ipaBits = ipaBits
    self.hasFWB = hasFWB
    self.hasXNX = hasXNX
    self.hasTLBRange = hasTLBRange
    precondition(
      physicalAddressBits == 48 || physicalAddressBits == kernel.ipaSizes.upperBound,
      "Linux \(kernel.rawValue) has no physical addresses of \(physicalAddressBits) bits")
    precondition(
      ipaBits <= physicalAddressBits, "\(ipaBits) bits of IPA need as many of physical addresses")
    has52Bits = physicalAddressBits == 52
    addressFormat = granule == .kib64 ? .lpa : has52Bits ? .lpa2 : .plain
    rereadsEntries = kernel.rereadsEntries
    // Up to 16 tables side by side translate four more bits than one table (Arm ARM D8.2.7).
    let levels = max(2, (ipaBits - 8) / (granule.pageShift - 3))
    startLevel = Granule.lastLevel + 1 - levels
    memory = TableMemory(granule: granule, source: source)
    let shift = granule.shift(level: startLevel - 1)
    root = memory.allocateContiguous(pages: ipaBits > shift ? 1 << (ipaBits - shift) : 1)
  }

  /// The size of a physical address in bits: 52 with FEAT_LPA2, and for pages of 64 KiB with FEAT_LPA; 48 without.
  public var physicalAddressBits: Int { has52Bits ? 52 : 48 }

  /// The physical address of the start tables: VTTBR_EL2.BADDR.
  public var baseAddress: PhysicalAddress { memory.physicalAddress(of: root) }

  /// The number of tables side by side at the start level (`kvm_pgd_pages`).
  public var rootTables: Int {
    let shift = granule.shift(level: startLevel - 1)
    return ipaBits > shift ? 1 << (ipaBits - shift) : 1
  }

  /// The entry for `address` in the start tables (`kvm_pgd_page_idx`).
  @inlinable
  func rootEntry(for address: IntermediatePhysicalAddress) -> EntryReference {
    // The start tables are side by side, so that they are like one larger table.
    let shift = UInt64(truncatingIfNeeded: granule.shift(level: startLevel))
    return root.advanced(by: Int(truncatingIfNeeded: address.rawValue &>> shift))
  }
}
