/// The version of Linux that runs on the host, with the facts of its source: constants, limits, and choices in which versions
/// differ. The model of each version was compared with recordings of the real kernel (Tests/Recordings), and its page tables with the
/// kernel's own code (`oracle/pgtable`). The cases are in the order of the versions.
///
/// The rest of the model has the code that versions share, and takes a fact by its name from here. To add a version, add a
/// case: the compiler then lists the facts that need a value for it.
///
/// A version is an enumeration and not a structure of values. With one case it has no size, and each fact is a constant in the
/// code that uses it. With more cases, an operation chooses its facts before it begins: a visitor keeps them in its properties,
/// as ``CPUModel`` is kept in ``Stage2PageTable/hasXNX``. A loop over entries asks for no version.
public enum KernelVersion: String, CaseIterable, Sendable {
  /// Linux 5.10, of Debian 11.
  case linux510 = "5.10"
  /// Linux 6.1, of Debian 12. The raw value is also the name of the directories with evidence, as Tests/Recordings/6.1.
  case linux61 = "6.1"
  /// Linux 6.12, of Debian 13.
  case linux612 = "6.12"
  /// Linux 7.3, the newest one in Debian's archives.
  case linux73 = "7.3"

  /// The version of a machine that names none.
  public static let standard = KernelVersion.linux61

  /// The newest version that is not newer than a release of Linux such as `6.12.117`; the oldest version for an older release.
  public init(closestTo release: some StringProtocol) {
    let number = Self.number(release)
    self =
      Self.allCases.last { version in
        !number.lexicographicallyPrecedes(Self.number(version.rawValue))
      }
      ?? Self.allCases[0]
  }

  /// The first two numbers of a release.
  private static func number(_ release: some StringProtocol) -> [Int] {
    release.split(separator: ".").prefix(2).map { part in
      Int(part.prefix { ("0"..."9").contains($0) }) ?? 0
    }
  }
}

// MARK: - Page tables

/// arch/arm64/kvm/hyp/pgtable.c and arch/arm64/include/asm/kvm_pgtable.h
extension KernelVersion {
  /// The attributes of a leaf: `KVM_PTE_LEAF_ATTR_LO`, bits [11:2], and `KVM_PTE_LEAF_ATTR_HI`, bits [63:51], in 6.12 and 7.3
  /// [63:50].
  public var leafAttributes: UInt64 {
    switch self {
    case .linux510, .linux61: 0xfff8_0000_0000_0ffc
    case .linux612, .linux73: 0xfffc_0000_0000_0ffc
    }
  }

  /// The bits that may differ between two entries for the same mapping: `KVM_PTE_LEAF_ATTR_S2_PERMS`. Of XN, 6.1 and 6.12
  /// know bit 54 only. Version 5.10 has no such bits: other permissions are another mapping.
  var permissions: UInt64 {
    switch self {
    case .linux510: 0
    case .linux61, .linux612:
      Stage2Descriptor.read | Stage2Descriptor.write | Stage2Descriptor.executeNever
    case .linux73:
      Stage2Descriptor.read | Stage2Descriptor.write | Stage2Descriptor.executeNever
        | Stage2Descriptor.executeNever0
    }
  }

  /// The largest number of an owner in an invalid entry: `KVM_MAX_OWNER_ID`. Nil in a version without
  /// `kvm_pgtable_stage2_set_owner`: 5.10 has no owners, and 7.3 has `kvm_pgtable_stage2_annotate` instead.
  var largestOwner: UInt8? {
    switch self {
    case .linux61, .linux612: 1
    case .linux510, .linux73: nil
    }
  }

  /// The bits of XN that must be 0b10 or 1 for an entry that nobody may execute (`stage2_pte_executable`): bit 54, and in 7.3
  /// both. Version 5.10 does not ask, because it maintains instruction caches in mmu.c: with no bit, no change makes an entry
  /// executable.
  var executeNever: UInt64 {
    switch self {
    case .linux510: 0
    case .linux61, .linux612: Stage2Descriptor.executeNever
    case .linux73: Stage2Descriptor.executeNever | Stage2Descriptor.executeNever0
    }
  }

  /// Whether an entry holds a reference on its table: `stage2_pte_is_counted`, each entry that is not zero. In 5.10, only valid
  /// entries do.
  func isCounted(_ descriptor: Stage2Descriptor) -> Bool {
    switch self {
    case .linux510: descriptor.isValid
    case .linux61, .linux612, .linux73: descriptor.isCounted
    }
  }

  /// Whether `__kvm_pgtable_visit` gives visitors the entry that it has read (`struct kvm_pgtable_visit_ctx`), and reads the entry
  /// again after each visit, also after one on the way down: the code since 6.2.
  var rereadsEntries: Bool {
    switch self {
    case .linux510, .linux61: false
    case .linux612, .linux73: true
    }
  }

  /// Whether a walk goes on after a visitor has returned `EAGAIN`: `kvm_pgtable_walk_continue`.
  @usableFromInline
  func ignoresTryAgain(_ flags: WalkFlags) -> Bool {
    switch self {
    case .linux510, .linux61: false
    case .linux612: !flags.contains(.handleFault)
    case .linux73: flags.contains(.ignoreTryAgain)
    }
  }

  /// Whether a map asks of each physical address whether it is one (`kvm_phys_is_valid`), for versions with
  /// ``rereadsEntries``.
  var checksPhysicalAddresses: Bool {
    switch self {
    case .linux510, .linux73: false
    case .linux61, .linux612: true
    }
  }

  /// Whether there is memory that is not cached, `KVM_PGTABLE_PROT_NORMAL_NC`.
  var hasNonCacheable: Bool {
    switch self {
    case .linux510, .linux61: false
    case .linux612, .linux73: true
    }
  }

  /// The entry between break and make: `KVM_INVALID_PTE_LOCKED`, in 7.3 `KVM_INVALID_PTE_TYPE_LOCKED`. Earlier versions have
  /// none.
  var lockedEntry: Stage2Descriptor {
    switch self {
    case .linux510, .linux61: Stage2Descriptor(rawValue: 0)
    case .linux612: Stage2Descriptor(rawValue: 1 << 10)
    case .linux73: Stage2Descriptor(rawValue: UInt64(Stage2Descriptor.lockedType) << 60)
    }
  }

  /// `stage2_pte_is_locked`
  func isLocked(_ descriptor: Stage2Descriptor) -> Bool {
    guard !descriptor.isValid else { return false }
    return switch self {
    case .linux510, .linux61: false
    case .linux612: descriptor.rawValue & lockedEntry.rawValue != 0
    case .linux73: descriptor.rawValue >> 60 == Stage2Descriptor.lockedType
    }
  }

  /// The flags that the handlers of faults in arch/arm64/kvm/mmu.c give to the walks of `kvm_pgtable_stage2_map`,
  /// `_relax_perms` and `_mkyoung`. In 6.12, the last two set them themselves.
  var faultFlags: WalkFlags {
    switch self {
    case .linux510, .linux61: []
    case .linux612: [.handleFault, .shared]
    case .linux73: .shared
    }
  }

  /// The flags of the walk of `kvm_pgtable_stage2_wrprotect`.
  var writeProtectFlags: WalkFlags {
    switch self {
    case .linux510, .linux61, .linux612: []
    case .linux73: .ignoreTryAgain
    }
  }

  /// The range that `stage2_apply_range` of arch/arm64/kvm/mmu.c gives to one walk: one block of the lowest level that has
  /// blocks (`stage2_range_addr_end`), and in 5.10 one entry of the start tables (`stage2_pgd_addr_end`).
  func walkRange(_ granule: Granule, startLevel: Int) -> UInt64 {
    switch self {
    case .linux510: granule.size(level: startLevel)
    case .linux61, .linux612, .linux73:
      granule.size(level: granule.allowsLeaf(level: 1) ? 1 : 2)
    }
  }
}

extension KernelVersion {
  /// Whether an entry that became invalid keeps the address of its page or table (`kvm_set_invalid_pte`). Later versions clear the
  /// whole entry (`kvm_clear_pte`).
  var keepsAddressesInInvalidEntries: Bool {
    switch self {
    case .linux510: true
    case .linux61, .linux612, .linux73: false
    }
  }
}

// MARK: - KVM

/// arch/arm64/kvm
extension KernelVersion {
  /// The sizes of the intermediate physical address in bits that KVM offers (`KVM_VM_TYPE_ARM_IPA_SIZE`), on a CPU that has as
  /// many (`kvm_set_ipa_limit` of reset.c). More than 48 need FEAT_LPA2, or pages of 64 KiB with FEAT_LPA.
  public var ipaSizes: ClosedRange<Int> {
    switch self {
    case .linux510, .linux61: 32...48
    case .linux612, .linux73: 32...52
    }
  }

  /// The largest size of the intermediate physical address in bits that KVM gives a VM on a CPU: `get_kvm_ipa_limit`. No
  /// ``CPUModel`` has FEAT_LPA2 on.
  @inline(__always)
  public func ipaLimit(on cpu: CPUModel) -> Int {
    min(cpu.physicalAddressBits, 48)
  }

  /// The value of registers that have none after a reset: `reset_unknown` (sys_regs.h).
  var unknownRegister: UInt64 {
    switch self {
    case .linux510, .linux61, .linux612, .linux73: 0x1de7_ec7e_dbad_c0de
    }
  }

  /// The line that `io_mem_abort` (mmio.c) logs for an access without a syndrome. Nil in a version that logs none, but has the
  /// tracepoint `kvm_mmio_nisv` instead.
  var noSyndromeMessage: StaticString? {
    switch self {
    case .linux510, .linux61: "Data abort outside memslots with no valid syndrome info"
    case .linux612, .linux73: nil
    }
  }

  /// Whether a load that extends the sign does so for MMIO (`kvm_handle_mmio_return` of mmio.c). Earlier versions extend the sign, and
  /// then cut the result to the access's size (`vcpu_data_host_to_guest`).
  var extendsSignOfMMIO: Bool {
    switch self {
    case .linux510, .linux61, .linux612: false
    case .linux73: true
    }
  }

  /// ESR_EL1 of an exception that `inject_abt64` (inject_fault.c) injects.
  ///
  /// Version 6.1 shifts the exception class as a signed `int`, so the upper half becomes all ones. In 5.10, the syndrome is a
  /// `u32`; in 6.12 and 7.3, the class is an unsigned constant (`ESR_ELx_EC_DABT_LOW` of asm/esr.h).
  func injectedSyndrome(_ syndrome: UInt64) -> UInt64 {
    switch self {
    case .linux61: UInt64(bitPattern: Int64(Int32(truncatingIfNeeded: syndrome)))
    case .linux510, .linux612, .linux73: UInt64(UInt32(truncatingIfNeeded: syndrome))
    }
  }
}

/// arch/arm64/kvm/mmu.c and virt/kvm/kvm_main.c
extension KernelVersion {
  /// Whether KVM sets VTCR_EL2.HA, so that a CPU with FEAT_HAFDBS sets the access flag itself (`kvm_get_vtcr` of hyp/pgtable.c, in
  /// 5.10 `kvm_arm_setup_stage2` of reset.c). Later versions do so only with CONFIG_ARM64_HW_AFDBM, which the recorded kernels do
  /// not have.
  var usesHardwareAccessFlag: Bool {
    switch self {
    case .linux510: true
    case .linux61, .linux612, .linux73: false
    }
  }

  /// Whether KVM invalidates TLB entries by range on a CPU with FEAT_TLBIRANGE (`system_supports_tlb_range`). Version 6.12 and
  /// later ones do so only with CONFIG_ARM64_TLB_RANGE, which the recorded kernels do not have.
  var usesTLBRange: Bool {
    switch self {
    case .linux510, .linux61, .linux612, .linux73: false
    }
  }

  /// Whether `kvm_handle_guest_abort` injects an abort for an address beyond the guest's address space. Version 5.10 takes such
  /// an access for MMIO.
  @inline(__always)
  var checksAddressSpace: Bool {
    switch self {
    case .linux510: false
    case .linux61, .linux612, .linux73: true
    }
  }

  /// Whether `user_mem_abort` refuses a permission fault of a load with `EFAULT`. Version 7.3 maps the page once more.
  var refusesPermissionFaultOfLoad: Bool {
    switch self {
    case .linux510, .linux61, .linux612: true
    case .linux73: false
    }
  }

  /// Whether `user_mem_abort` keeps the size of the leaf whose permissions are in the way. Version 5.10 looks at the host's page
  /// again.
  var keepsSizeAtPermissionFault: Bool {
    switch self {
    case .linux510: false
    case .linux61, .linux612, .linux73: true
    }
  }

  /// Whether `user_mem_abort` marks the page as dirty before it maps the page, so that an error changes nothing. Later versions
  /// do so only after success.
  var marksDirtyBeforeMapping: Bool {
    switch self {
    case .linux510: true
    case .linux61, .linux612, .linux73: false
    }
  }

  /// Whether `user_mem_abort` marks the page as accessed if it maps nothing. Version 7.3 drops such a page as it was
  /// (`kvm_release_faultin_page`).
  var marksAccessedAtFailure: Bool {
    switch self {
    case .linux510, .linux61, .linux612: true
    case .linux73: false
    }
  }

  /// Whether `handle_access_fault` marks the host's page as accessed.
  var marksAccessedAtAccessFault: Bool {
    switch self {
    case .linux510, .linux61, .linux612: true
    case .linux73: false
    }
  }

  /// A reaction to the notifier `change_pte`.
  enum ChangePTE {
    /// `kvm_set_spte_hva` maps the new page, if there is a table for the page.
    case maps
    /// The same, if an invalidation is in progress in guest memory.
    case mapsDuringInvalidation
    /// There is no such notifier since 6.10.
    case none
  }

  /// The reaction to the notifier `change_pte`.
  var changePTE: ChangePTE {
    switch self {
    case .linux510: .maps
    case .linux61: .mapsDuringInvalidation
    case .linux612, .linux73: .none
    }
  }

  /// Whether the notifier of ageing makes all entries of a range old (`kvm_age_gfn`, since 6.5). Otherwise, it does so with the
  /// first one.
  var agesRanges: Bool {
    switch self {
    case .linux510, .linux61: false
    case .linux612, .linux73: true
    }
  }

  /// Whether an invalidation counts (`mmu_notifier_count`, `mmu_notifier_seq`) if it is of memory that the guest does not have.
  var countsAllInvalidations: Bool {
    switch self {
    case .linux510: true
    case .linux61, .linux612, .linux73: false
    }
  }
}

// MARK: - Memory of the host

/// mm
extension KernelVersion {
  /// The number of areas of a process: the default of `sysctl_max_map_count`, `DEFAULT_MAX_MAP_COUNT` of include/linux/mm.h.
  var mostAreas: Int {
    switch self {
    case .linux510, .linux61, .linux612, .linux73: 65_530
    }
  }

  /// The number of pages that a batch of a CPU holds: `PAGEVEC_SIZE` of include/linux/pagevec.h, in 7.3 `FOLIO_BATCH_SIZE` of
  /// include/linux/folio_batch.h.
  var pageBatch: Int {
    switch self {
    case .linux510, .linux61: 15
    case .linux612, .linux73: 31
    }
  }

  /// The bytes that `do_fault_around` (mm/memory.c) maps at most: `fault_around_bytes`, in 6.12 and 7.3 `fault_around_pages`.
  var faultAroundSize: UInt64 {
    switch self {
    case .linux510, .linux61, .linux612, .linux73: 64 << 10
    }
  }

  /// Whether madvise(2) knows an advice (`madvise_behavior_valid` of mm/madvise.c): `MADV_POPULATE_READ` and `_WRITE` since 5.14,
  /// `MADV_COLLAPSE` since 6.1.
  func knows(_ advice: MemoryAdvice) -> Bool {
    switch self {
    case .linux510: ![.collapse, .populateRead, .populateWrite].contains(advice)
    case .linux61, .linux612, .linux73: true
    }
  }

  /// Whether `MADV_DONTNEED` takes memory of hugetlbfs, since 5.18 (`madvise_dontneed_free_valid_vma` of mm/madvise.c).
  var discardsHugetlb: Bool {
    switch self {
    case .linux510: false
    case .linux61, .linux612, .linux73: true
    }
  }

  /// Whether an anonymous page knows that one process alone has it (`PG_anon_exclusive`, since 5.19). In 5.10, a store to a
  /// protected page makes a copy, if the page has any other reference (`do_wp_page` of mm/memory.c), and mprotect(2) does not make
  /// the entry of such a page writable again.
  var knowsExclusivePages: Bool {
    switch self {
    case .linux510: false
    case .linux61, .linux612, .linux73: true
    }
  }

  /// Whether mprotect(2) makes an exclusive page writable again only if its entry is dirty, and never a huge page as a whole
  /// (`can_change_pte_writable` of mm/mprotect.c, `can_change_pmd_writable` of mm/huge_memory.c, which is newer).
  var needsDirtyPageToMakeWritable: Bool {
    switch self {
    case .linux510, .linux61: true
    case .linux612, .linux73: false
    }
  }

  /// Whether mprotect(2) tells the MMU notifiers once of the whole range, from the first part on that has a directory of huge
  /// pages (`change_pud_range` of mm/mprotect.c, since 6.12). Otherwise, each directory has its own notification, from its first entry on
  /// (`change_pmd_range`).
  var protectsInOneNotification: Bool {
    switch self {
    case .linux510, .linux61: false
    case .linux612, .linux73: true
    }
  }

  /// Whether mprotect(2) to read-only gives the accounted memory of an area back that was never written (`mprotect_fixup` of
  /// mm/mprotect.c). The area has no `VM_ACCOUNT` then, so it does not merge with one that was written.
  var releasesAccountOfUntouchedMemory: Bool {
    switch self {
    case .linux510, .linux61: false
    case .linux612, .linux73: true
    }
  }

  /// Whether the pages of a huge page that is split are dirty if the huge page was (`__split_huge_pmd_locked` of
  /// mm/huge_memory.c).
  var keepsDirtyAtSplit: Bool {
    switch self {
    case .linux510, .linux61: false
    case .linux612, .linux73: true
    }
  }

  /// Whether the split of an anonymous huge page puts the zero page in the place of each page that has only zeros
  /// (`try_to_map_unused_to_zeropage` of mm/migrate.c, since 6.12).
  var mapsZerosToZeroPageAtSplit: Bool {
    switch self {
    case .linux510, .linux61: false
    case .linux612, .linux73: true
    }
  }

  /// Whether a store to a protected page of an anonymous huge page always makes a copy (`wp_can_reuse_anon_folio` of mm/memory.c).
  /// Otherwise, the page is used again if its entry is the last one of the huge page.
  var copiesPagesOfHugePages: Bool {
    switch self {
    case .linux510, .linux61: false
    case .linux612, .linux73: true
    }
  }

  /// Whether the kernel knows if one process alone maps a huge page and its pages (CONFIG_MM_ID). A store to a protected
  /// page of such a huge page makes no copy then, if the huge page has more entries (`__wp_can_reuse_large_anon_folio` of
  /// mm/memory.c).
  var knowsProcessesOfHugePages: Bool {
    switch self {
    case .linux510, .linux61, .linux612: false
    case .linux73: true
    }
  }

  /// The number of holders of an anonymous page up to which a store to the protected page empties the batches, so that the page
  /// may be used again (`wp_can_reuse_anon_folio` of mm/memory.c, in 6.1 `do_wp_page`). `isListed` says that no batch of new pages
  /// has the page (`folio_test_lru`).
  func mostHoldersOfReusedPage(isListed: Bool) -> Int {
    switch self {
    case .linux510, .linux61, .linux612: 3
    case .linux73: isListed ? 1 : 2
    }
  }

  /// Whether `MADV_DONTNEED` frees a table if the range has all its entries (CONFIG_PT_RECLAIM, `zap_pte_range` of mm/memory.c).
  /// The next fault may make a huge page.
  var reclaimsTables: Bool {
    switch self {
    case .linux510, .linux61, .linux612: false
    case .linux73: true
    }
  }

  /// Whether an unmapping, also that of `MADV_DONTNEED` or of a process that ends, empties the batches of pages (`unmap_region`,
  /// `exit_mmap` and `zap_page_range_single` call `lru_add_drain`).
  var drainsLRUAtUnmapping: Bool {
    switch self {
    case .linux510, .linux61, .linux612: true
    case .linux73: false
    }
  }

  /// Whether the split of a huge page splits its entry before each area is told of (`try_to_migrate_one` of mm/rmap.c), so that
  /// the MMU notifiers hear of the whole huge page. Otherwise, they hear of the part that the area may map.
  var splitsBeforeMigration: Bool {
    switch self {
    case .linux510, .linux61, .linux612: true
    case .linux73: false
    }
  }

  /// Whether a store to the huge zero page makes a huge page (`do_huge_zero_wp_pmd` of mm/huge_memory.c, since 6.13). Otherwise, the
  /// huge zero page is split, and one page is made.
  var replacesHugeZeroPage: Bool {
    switch self {
    case .linux510, .linux61, .linux612: false
    case .linux73: true
    }
  }

  /// Whether KSM begins anew with a page that is not merged any more: its record has no checksum and no age
  /// (`remove_rmap_item_from_tree` of mm/ksm.c).
  var forgetsUnmergedPages: Bool {
    switch self {
    case .linux510, .linux61, .linux612: false
    case .linux73: true
    }
  }

  /// Whether a huge page of a file is mapped by pages in an area with the advice `MADV_NOHUGEPAGE` (`do_set_pmd` of
  /// mm/memory.c).
  var noHugePageIsForFiles: Bool {
    switch self {
    case .linux510, .linux61: false
    case .linux612, .linux73: true
    }
  }

  /// Whether an unmapping of hugetlb pages tells the MMU notifiers of each area, too (`__unmap_hugepage_range` of mm/hugetlb.c).
  var notifiesOfHugetlbAreas: Bool {
    switch self {
    case .linux510, .linux61: true
    case .linux612, .linux73: false
    }
  }

  /// Whether `MADV_COLLAPSE` maps the new huge page of a file also if the area has pages of its own, or no table (`collapse_file` of
  /// mm/khugepaged.c, since 6.6).
  var mapsCollapsedFileAlways: Bool {
    switch self {
    case .linux510, .linux61: false
    case .linux612, .linux73: true
    }
  }

  /// Whether `MADV_COLLAPSE` makes a huge page of pages of which none is writable, and goes on after a range that has no table
  /// (`collapse_scan_pmd` and `madvise_collapse` of mm/khugepaged.c).
  var collapsesReadOnlyPages: Bool {
    switch self {
    case .linux510, .linux61, .linux612: false
    case .linux73: true
    }
  }

  /// Whether `MADV_FREE` leaves a huge page whole if the range has all its pages (`madvise_free_pte_range` of mm/madvise.c, since
  /// 6.10).
  var freesHugePagesWhole: Bool {
    switch self {
    case .linux510, .linux61: false
    case .linux612, .linux73: true
    }
  }

  /// Whether `MADV_FREE` takes the mappings of a huge page's first page for those of all its pages (`folio_estimated_sharers`).
  /// Version 5.10 asks for the page itself (`page_mapcount`).
  var estimatesSharersOfHugePages: Bool {
    switch self {
    case .linux510: false
    case .linux61, .linux612, .linux73: true
    }
  }

  /// Whether entries of user space have the contiguous bit (CONFIG_ARM64_CONTPTE, since 6.9), which ends a batch of entries in
  /// ``freesHugePagesWhole``.
  var hasContiguousEntries: Bool {
    switch self {
    case .linux510, .linux61: false
    case .linux612, .linux73: true
    }
  }

  /// Whether `MADV_POPULATE_READ` and `_WRITE` end at the first hole (`madvise_populate` of mm/madvise.c, since 6.9). Otherwise,
  /// the hole is skipped, as for all advice.
  var populateEndsAtHole: Bool {
    switch self {
    case .linux510, .linux61: false
    case .linux612, .linux73: true
    }
  }

  /// Whether KSM gives a page back to a process as a load does, so that the next store faults (`break_ksm` of mm/ksm.c, since
  /// 6.2).
  var unmergesForReading: Bool {
    switch self {
    case .linux510, .linux61: false
    case .linux612, .linux73: true
    }
  }

  /// Whether KSM looks at the checksum of a page before it searches the merged pages (`cmp_and_merge_page` of mm/ksm.c).
  /// Otherwise, only pages that are to become a merged page have to be unchanged.
  var comparesChecksumFirst: Bool {
    switch self {
    case .linux510, .linux61: false
    case .linux612, .linux73: true
    }
  }

  /// Whether KSM skips pages that it has often found without a merge (`should_skip_rmap_item` of mm/ksm.c, since 6.7).
  var scansSmartly: Bool {
    switch self {
    case .linux510, .linux61: false
    case .linux612, .linux73: true
    }
  }

  /// Whether `mmap_region` of mm/mmap.c merges a new area by `vma_merge`, as mprotect(2) and madvise(2) do. Later versions have code of
  /// their own for it.
  var mergesNewAreaByMerge: Bool {
    switch self {
    case .linux510: true
    case .linux61, .linux612, .linux73: false
    }
  }

  /// Whether a new area that could join both neighbours, which cannot join each other, joins the one below it
  /// (`vma_merge_new_range` of mm/vma.c). Otherwise, it joins the one above it (`mmap_region` of mm/mmap.c). Version 5.10 has
  /// ``mergesNewAreaByMerge`` instead.
  var joinsAreaBelowFirst: Bool {
    switch self {
    case .linux510, .linux61: false
    case .linux612, .linux73: true
    }
  }

  /// Whether an area that has no anonymous pages yet takes the range of a neighbour that has some (`is_mergeable_anon_vma` of
  /// mm/vma.c). Otherwise, such a range stays an area of its own.
  var mergesIntoAreaWithoutFamily: Bool {
    switch self {
    case .linux510, .linux61, .linux612: false
    case .linux73: true
    }
  }

  /// Whether mmap(2) over other memory, which cannot be unmapped, returns the error of the unmapping. Otherwise, it returns `ENOMEM`
  /// (`mmap_region` of mm/mmap.c).
  var mapReturnsErrorOfUnmapping: Bool {
    switch self {
    case .linux510, .linux61: false
    case .linux612, .linux73: true
    }
  }

  /// The number of items that may share a merged page: `ksm_max_page_sharing` of mm/ksm.c.
  var mostPageSharers: Int {
    switch self {
    case .linux510, .linux61, .linux612, .linux73: 256
    }
  }

  /// The error of `madvise_collapse` (mm/khugepaged.c) for a range that lies within one huge page; nil for success.
  ///
  /// Versions 6.1 and 6.12 count the huge pages of such a range as more than it can have. Version 5.10 does not know
  /// `MADV_COLLAPSE` (`madvise_behavior_valid` of mm/madvise.c).
  var collapseWithinHugePage: KernelError? {
    switch self {
    case .linux510, .linux61, .linux612: .invalidArgument
    case .linux73: nil
    }
  }
}
