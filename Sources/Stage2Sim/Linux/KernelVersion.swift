/// The version of Linux that runs on the host, with the facts of its source: constants, limits, and choices in which versions
/// differ.
///
/// The rest of the model has the code that versions share, and takes a fact by its name from here. To add a version, add a case:
/// the compiler then lists the facts that need a value for it.
///
/// A version is an enumeration and not a structure of values. With one case it has no size, and each fact is a constant in the
/// code that uses it. With more cases, an operation chooses its facts before it begins: a visitor keeps them in its properties,
/// as ``CPUModel`` is kept in ``Stage2PageTable/hasXNX``. A loop over entries asks for no version.
public enum KernelVersion: String, CaseIterable, Sendable {
  /// Linux 6.1. The raw value is also the name of the directories with evidence, as Tests/Recordings/6.1.
  case linux61 = "6.1"

  /// The version of a machine that names none.
  public static let standard = KernelVersion.linux61
}

// MARK: - Page tables

/// arch/arm64/kvm/hyp/pgtable.c and arch/arm64/include/asm/kvm_pgtable.h
extension KernelVersion {
  /// The attributes of a leaf: `KVM_PTE_LEAF_ATTR_LO`, bits [11:2], and `KVM_PTE_LEAF_ATTR_HI`, bits [63:51].
  public var leafAttributes: UInt64 {
    switch self {
    case .linux61: 0xfff8_0000_0000_0ffc
    }
  }

  /// The bits that may differ between two entries for the same mapping: `KVM_PTE_LEAF_ATTR_S2_PERMS`. Of XN, the version
  /// knows bit 54 only.
  var permissions: UInt64 {
    switch self {
    case .linux61:
      Stage2Descriptor.read | Stage2Descriptor.write | Stage2Descriptor.executeNever
    }
  }

  /// The largest number of an owner in an invalid entry: `KVM_MAX_OWNER_ID`.
  var largestOwner: UInt8 {
    switch self {
    case .linux61: 1
    }
  }

  /// The range that `stage2_apply_range` gives to one walk: one block of the lowest level that has blocks
  /// (`stage2_range_addr_end`).
  func walkRange(_ granule: Granule) -> UInt64 {
    switch self {
    case .linux61: granule.size(level: granule.allowsLeaf(level: 1) ? 1 : 2)
    }
  }
}

// MARK: - KVM

/// arch/arm64/kvm
extension KernelVersion {
  /// The sizes of the intermediate physical address in bits that KVM offers (`KVM_VM_TYPE_ARM_IPA_SIZE`), on a CPU that has as
  /// many.
  public var ipaSizes: ClosedRange<Int> {
    switch self {
    case .linux61: 32...48
    }
  }

  /// The largest size of the intermediate physical address in bits that KVM gives a VM on a CPU: `get_kvm_ipa_limit`.
  @inline(__always)
  public func ipaLimit(on cpu: CPUModel) -> Int {
    min(cpu.physicalAddressBits, ipaSizes.upperBound)
  }

  /// The value of registers that have none after a reset: `reset_unknown`.
  var unknownRegister: UInt64 {
    switch self {
    case .linux61: 0x1de7_ec7e_dbad_c0de
    }
  }

  /// The line that `io_mem_abort` logs for an access without a syndrome.
  var noSyndromeMessage: StaticString {
    switch self {
    case .linux61: "Data abort outside memslots with no valid syndrome info"
    }
  }

  /// ESR_EL1 of an exception that `inject_abt64` injects.
  ///
  /// Version 6.1 shifts the exception class as a signed `int`, so the upper half becomes all ones.
  func injectedSyndrome(_ syndrome: UInt64) -> UInt64 {
    switch self {
    case .linux61: UInt64(bitPattern: Int64(Int32(truncatingIfNeeded: syndrome)))
    }
  }
}

// MARK: - Memory of the host

/// mm
extension KernelVersion {
  /// The number of areas of a process: the default of `sysctl_max_map_count`.
  var mostAreas: Int {
    switch self {
    case .linux61: 65_530
    }
  }

  /// The number of pages that a batch of a CPU holds: `PAGEVEC_SIZE`.
  var pageBatch: Int {
    switch self {
    case .linux61: 15
    }
  }

  /// The bytes that `do_fault_around` maps at most: `fault_around_bytes`.
  var faultAroundSize: UInt64 {
    switch self {
    case .linux61: 64 << 10
    }
  }

  /// The number of items that may share a merged page: `ksm_max_page_sharing`.
  var mostPageSharers: Int {
    switch self {
    case .linux61: 256
    }
  }

  /// The error of `madvise_collapse` for a range that lies within one huge page; nil for success.
  ///
  /// Version 6.1 counts the huge pages of such a range as more than it can have.
  var collapseWithinHugePage: KernelError? {
    switch self {
    case .linux61: .invalidArgument
    }
  }
}
