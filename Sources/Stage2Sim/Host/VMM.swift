/// Operations of the VMM and of the host's kernel on the guest's memory. Addresses are guest physical addresses of a slot. No
/// vCPU and no stage 2 takes part, but KVM's MMU notifier is called.
extension VirtualMachine {
  /// The VMM's address of guest memory.
  private func userspaceAddress(
    of ipa: IntermediatePhysicalAddress
  ) throws(KernelError) -> HostVirtualAddress {
    guard let slot = kvm.slot(for: ipa) else { throw .badAddress }
    return slot.userspaceAddress(of: ipa)
  }

  /// A store of the low `count` (1 to 8) bytes of `value`, little-endian, inside one page of a slot.
  ///
  /// - Throws: `EFAULT` if there is no memory, or if the VMM may not write it.
  public mutating func write(
    _ value: UInt64, to ipa: IntermediatePhysicalAddress, count: Int
  ) throws(KernelError) {
    try host.write(
      value, to: try userspaceAddress(of: ipa), count: count, notifier: &kvm)
  }

  /// A load of `count` (1 to 8) bytes, little-endian, inside one page of a slot.
  ///
  /// - Throws: `EFAULT` if there is no memory, or if the VMM may not read it.
  public mutating func read(
    _ ipa: IntermediatePhysicalAddress, count: Int
  ) throws(KernelError) -> UInt64 {
    try host.read(try userspaceAddress(of: ipa), count: count, notifier: &kvm)
  }
}

/// The same by offsets in guest RAM, independent of its slot.
extension VirtualMachine {
  /// The VMM's addresses of a part of guest RAM.
  private func memoryRange(
    _ range: Range<UInt64>
  ) throws(KernelError) -> Range<HostVirtualAddress> {
    guard range.upperBound <= configuration.memorySize else { throw .badAddress }
    return Self.memoryAddress + range.lowerBound..<Self.memoryAddress + range.upperBound
  }

  /// Writes as ``write(_:to:count:)``, at an offset in bytes.
  public mutating func writeRAM(
    _ value: UInt64, to offset: UInt64, count: Int
  ) throws(KernelError) {
    let range = try memoryRange(offset..<offset + UInt64(count))
    try host.write(value, to: range.lowerBound, count: count, notifier: &kvm)
  }

  /// Reads as ``read(_:count:)``, at an offset in bytes.
  public mutating func readRAM(_ offset: UInt64, count: Int) throws(KernelError) -> UInt64 {
    let range = try memoryRange(offset..<offset + UInt64(count))
    return try host.read(range.lowerBound, count: count, notifier: &kvm)
  }

  /// madvise(2)
  ///
  /// - Parameters:
  ///   - advice: The advice.
  ///   - range: Offsets in guest RAM, in bytes; the start on a page.
  /// - Throws: `EINVAL` if the memory does not support the advice, `ENOMEM` if a part of it is not there, `EFAULT` beyond
  ///   guest RAM. The part before the error is done.
  public mutating func advise(
    _ advice: MemoryAdvice, _ range: Range<UInt64>
  ) throws(KernelError) {
    try host.advise(advice, try memoryRange(range), notifier: &kvm)
  }

  /// mprotect(2)
  ///
  /// - Throws: As ``advise(_:_:)``.
  public mutating func protect(
    _ range: Range<UInt64>, _ protection: MemoryProtection
  ) throws(KernelError) {
    try host.protect(try memoryRange(range), protection, notifier: &kvm)
  }

  /// munmap(2)
  ///
  /// - Throws: `EINVAL` for no bytes, and inside a hugetlb page; `EFAULT` beyond guest RAM.
  public mutating func unmapMemory(_ range: Range<UInt64>) throws(KernelError) {
    guard !range.isEmpty else { throw .invalidArgument }
    try host.unmap(try memoryRange(range), notifier: &kvm)
  }

  /// mmap(2) of anonymous memory, which replaces the memory that is there.
  ///
  /// - Throws: `EINVAL` for no bytes, `ENOMEM` inside a hugetlb page; `EFAULT` beyond guest RAM.
  public mutating func mapMemory(_ range: Range<UInt64>) throws(KernelError) {
    try host.map(try memoryRange(range), notifier: &kvm)
  }

  /// fork(2): the VMM has a child that shares its pages, until ``endFork()``.
  ///
  /// - Throws: `EAGAIN` if the VMM has 64 children, `ENOMEM` if the host has no room for more page tables.
  public mutating func fork() throws(KernelError) { try host.fork(notifier: &kvm) }

  /// Ends the youngest child.
  ///
  /// - Returns: False if there is none.
  @discardableResult
  public mutating func endFork() -> Bool { host.endFork() }

  /// Lets KSM scan until all equal mergeable pages are merged.
  ///
  /// - Throws: `ETIMEDOUT` if nothing is mergeable, `EINTR` if the ``checkpoint`` has ended the scan.
  public mutating func mergeEqualPages() throws(KernelError) {
    try host.scanForMerging(notifier: &kvm)
    if let checkpoint, checkpoint.isStopped { throw .interrupted }
  }

  /// The checkpoint that can end a long operation; nil if operations have no end but their own.
  public var checkpoint: Checkpoint? {
    get { host.checkpoint }
    set { host.checkpoint = newValue }
  }

  /// Marks the page at an offset in guest RAM idle, by idle page tracking.
  ///
  /// - Throws: `ENOENT` if nothing is mapped, `EFAULT` beyond guest RAM.
  public mutating func age(_ offset: UInt64) throws(KernelError) {
    try host.age(try memoryRange(offset..<offset + 1).lowerBound, notifier: &kvm)
  }

  /// Whether a frame that an entry maps is in use by the host. One that was freed stands for another page when it comes
  /// back.
  public func isInUse(frame: PhysicalAddress) -> Bool { host.isInUse(frame) }

  /// How often the host has freed memory. While the number stays the same, a frame in use stays in use.
  public var freeCount: Int { host.physical.freeCount }
}
