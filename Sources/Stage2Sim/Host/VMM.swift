/// What the VMM does to the guest's memory, or the host's kernel with it. Addresses are guest physical ones of a slot;
/// no vCPU and no stage 2 is involved, but KVM hears of it through its MMU notifier.
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
  /// - Throws: `EFAULT` where there is no memory, or the VMM may not write it.
  public mutating func write(
    _ value: UInt64, to ipa: IntermediatePhysicalAddress, count: Int
  ) throws(KernelError) {
    try host.write(
      value, to: try userspaceAddress(of: ipa), count: count, notifier: &kvm)
  }

  /// A load of `count` (1 to 8) bytes, little-endian, inside one page of a slot.
  ///
  /// - Throws: `EFAULT` where there is no memory, or the VMM may not read it.
  public mutating func read(
    _ ipa: IntermediatePhysicalAddress, count: Int
  ) throws(KernelError) -> UInt64 {
    try host.read(try userspaceAddress(of: ipa), count: count, notifier: &kvm)
  }
}

/// The same by offsets in guest RAM, wherever its slot is, or if there is none.
extension VirtualMachine {
  /// The VMM's addresses of a part of guest RAM.
  private func memoryRange(
    _ range: Range<UInt64>
  ) throws(KernelError) -> Range<HostVirtualAddress> {
    guard range.upperBound <= configuration.memorySize else { throw .badAddress }
    return Self.memoryAddress + range.lowerBound..<Self.memoryAddress + range.upperBound
  }

  /// As ``write(_:to:count:)``, at an offset in bytes.
  public mutating func writeRAM(
    _ value: UInt64, to offset: UInt64, count: Int
  ) throws(KernelError) {
    let range = try memoryRange(offset..<offset + UInt64(count))
    try host.write(value, to: range.lowerBound, count: count, notifier: &kvm)
  }

  /// As ``read(_:count:)``, at an offset in bytes.
  public mutating func readRAM(_ offset: UInt64, count: Int) throws(KernelError) -> UInt64 {
    let range = try memoryRange(offset..<offset + UInt64(count))
    return try host.read(range.lowerBound, count: count, notifier: &kvm)
  }

  /// madvise(2)
  ///
  /// - Parameters:
  ///   - advice: What is to become of the memory.
  ///   - range: Offsets in guest RAM, in bytes; the start on a page.
  /// - Throws: `EINVAL` where the memory cannot take the advice, `ENOMEM` where some of it is not there, `EFAULT` beyond
  ///   guest RAM. What came before is done.
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

  /// mmap(2) of anonymous memory in place of what is there.
  ///
  /// - Throws: `EINVAL` for no bytes, `ENOMEM` inside a hugetlb page; `EFAULT` beyond guest RAM.
  public mutating func mapMemory(_ range: Range<UInt64>) throws(KernelError) {
    try host.map(try memoryRange(range), notifier: &kvm)
  }

  /// fork(2): the VMM has a child that shares its pages, until ``endFork()``.
  ///
  /// - Throws: `EAGAIN` where it has 64 of them, `ENOMEM` where the host has no room for more page tables.
  public mutating func fork() throws(KernelError) { try host.fork(notifier: &kvm) }

  /// Ends the youngest child.
  ///
  /// - Returns: False where there is none.
  @discardableResult
  public mutating func endFork() -> Bool { host.endFork() }

  /// Lets KSM scan until what is mergeable and equal is merged.
  ///
  /// - Throws: `ETIMEDOUT` where nothing is mergeable, `EINTR` where the ``checkpoint`` has ended it.
  public mutating func mergeEqualPages() throws(KernelError) {
    try host.scanForMerging(notifier: &kvm)
    if let checkpoint, checkpoint.isStopped { throw .interrupted }
  }

  /// Ends what takes long; nil where nothing does.
  public var checkpoint: Checkpoint? {
    get { host.checkpoint }
    set { host.checkpoint = newValue }
  }

  /// Marks the page at an offset in guest RAM idle, by idle page tracking.
  ///
  /// - Throws: `ENOENT` where nothing is mapped, `EFAULT` beyond guest RAM.
  public mutating func age(_ offset: UInt64) throws(KernelError) {
    try host.age(try memoryRange(offset..<offset + 1).lowerBound, notifier: &kvm)
  }

  /// Whether a frame that an entry maps is in use by the host. One that was freed stands for another page when it comes
  /// back.
  public func isInUse(frame: PhysicalAddress) -> Bool { host.isInUse(frame) }
}
