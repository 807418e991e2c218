/// A machine as KVM on arm64 Linux makes it for QEMU's `virt` board: the host's memory, the VM with its stage-2
/// table and its MMIO bus, one vCPU.
///
/// A machine is a value: a copy is a snapshot. It does no I/O, keeps no time and starts no thread; the same calls on the same
/// machine always end in the same state.
public struct VirtualMachine {
  /// The configuration of the machine.
  public let configuration: Configuration
  /// `struct kvm`: the stage-2 table and the memory slots.
  var kvm: KVM
  /// The vCPU: the guest's registers, and the last abort that it took.
  public internal(set) var vcpu: VCPU
  var host: HostMemory
  var bus = IOBus()
  /// The hooks in `io_mem_abort`. The first one may replace the function.
  var hooks: [any MMIOHook] = []
  /// The hook in the place of `kvm_hvc_call_handler`, if there is one. An array, as an optional hook makes a machine a value whose copies
  /// the compiler (Swift 6.3) gets wrong in a release build: a copy changed with its original (fuzz-descriptor).
  var hypercallHooks: [any HypercallHook] = []
  var stage1 = Stage1()

  /// The receiver of the hypervisor's events. A copy of the machine has the same observer.
  public var observer: (any MachineObserver)? {
    get { kvm.stage2.observer }
    set { kvm.stage2.observer = newValue }
  }

  /// The stream that the machine's events go to. A copy of the machine has the same stream.
  public var events: EventStream? {
    get { kvm.stage2.events.stream }
    set { kvm.stage2.events.stream = newValue }
  }

  /// The VM's stage-2 table (`kvm->arch.mmu.pgt`), to walk and change as code in the host's kernel could.
  /// KVM could not have a table of another shape in its place.
  public var stage2: Stage2PageTable {
    get { kvm.stage2 }
    _modify { yield &kvm.stage2 }
  }

  /// The VM's memory slots.
  public var slots: [MemorySlot] { kvm.slots }

  /// The properties of a machine.
  public struct Configuration: Hashable, Sendable {
    /// The host's CPU.
    public var cpu: CPUModel
    /// The version of the host's kernel.
    public var kernel: KernelVersion
    /// The host's page size, and the granule of the guest's stage 2.
    public var granule: Granule
    /// The size of the intermediate physical address in bits: one of ``KernelVersion/ipaSizes``, and no more than
    /// ``KernelVersion/ipaLimit(on:)``.
    public var ipaBits: Int
    /// The kind of the VMM's memory behind guest RAM.
    public var backing: Backing
    /// Guest RAM in bytes.
    public var memorySize: UInt64
    /// The rule for clearing the dirty log of every slot.
    public var dirtyLogProtection: DirtyLogProtection

    /// The first address of guest RAM on the `virt` board.
    public static let memoryBase: IntermediatePhysicalAddress = 0x4000_0000
    /// The least guest RAM: the boot stub and the kernel have to fit in.
    public static let leastMemory: UInt64 = 4 << 20
    /// The most guest RAM, with any IPA size. KVM takes less than 8 TiB in one slot (`KVM_MEM_MAX_NR_PAGES`).
    public static let mostMemory: UInt64 = 1 << 42
    /// The range of ``memorySize``: guest RAM ends within the IPA range.
    public static func memorySizes(ipaBits: Int) -> ClosedRange<UInt64> {
      leastMemory...min(1 << UInt64(ipaBits) - memoryBase.rawValue, mostMemory)
    }

    /// A machine, checked by ``VirtualMachine/init(_:tables:)``. Unless said otherwise: 256 MiB in huge pages, 40 bits of IPA.
    public init(
      cpu: CPUModel = .cortexA76, granule: Granule = .kib4, ipaBits: Int = 40,
      backing: Backing = .huge, memorySize: UInt64 = 256 << 20,
      dirtyLogProtection: DirtyLogProtection = .automatic, kernel: KernelVersion = .standard
    ) {
      self.cpu = cpu
      self.kernel = kernel
      self.granule = granule
      self.ipaBits = ipaBits
      self.backing = backing
      self.memorySize = memorySize
      self.dirtyLogProtection = dirtyLogProtection
    }
  }

  /// The VMM's number for the slot of guest RAM.
  public static let memorySlot = 0
  /// The first address of guest RAM in the VMM's address space, which is aligned to any block.
  package static let memoryAddress: HostVirtualAddress = 0x7f00_0000_0000

  /// A machine whose guest has run nothing yet: no entry in its stage-2 table, no device on its bus.
  ///
  /// - Parameters:
  ///   - configuration: The properties of the machine.
  ///   - tables: The origin of the memory of the stage-2 tables, if another process shares it.
  /// - Throws: `EINVAL` if the memory is less than ``Configuration/leastMemory``, more than ``Configuration/mostMemory``, or
  ///   not whole pages (huge pages, with hugetlb), or if the CPU does not have as many bits; `EFAULT` if the memory ends
  ///   beyond the IPA range.
  public init(
    _ configuration: Configuration = Configuration(), tables: TableSource? = nil
  ) throws(KernelError) {
    let granule = configuration.granule
    let alignment = configuration.backing == .hugetlb ? granule.blockSize : granule.pageSize
    guard configuration.memorySize >= Configuration.leastMemory,
      configuration.memorySize % alignment == 0,
      configuration.memorySize <= Configuration.mostMemory,
      configuration.kernel.ipaSizes.contains(configuration.ipaBits),
      configuration.ipaBits <= configuration.kernel.ipaLimit(on: configuration.cpu)
    else { throw .invalidArgument }
    self.configuration = configuration
    vcpu = VCPU(kernel: configuration.kernel)
    host = HostMemory(granule: granule, kernel: configuration.kernel)
    host.mapRAM(
      at: Self.memoryAddress, size: configuration.memorySize, backing: configuration.backing)
    kvm = KVM(
      stage2: Stage2PageTable(
        granule: granule, ipaBits: configuration.ipaBits, hasFWB: configuration.cpu.hasFWB,
        hasXNX: configuration.cpu.hasXNX,
        hasTLBRange: configuration.cpu.hasTLBRange && configuration.kernel.usesTLBRange,
        kernel: configuration.kernel, source: tables))
    kvm.dirtyLogProtection = configuration.dirtyLogProtection
    try setMemoryRegion(
      MemorySlot(
        id: Self.memorySlot, ipa: Configuration.memoryBase, size: configuration.memorySize,
        userspaceAddress: Self.memoryAddress))
  }

  /// A machine whose guest's kernel has booted: the entry of IPA 0x40000000 is valid and executable, since the board's boot
  /// stub ran there. It has no hook.
  ///
  /// - Throws: As ``init(_:tables:)``.
  public static func booted(
    _ configuration: Configuration = Configuration(), tables: TableSource? = nil
  ) throws(KernelError) -> VirtualMachine {
    var machine = try VirtualMachine(configuration, tables: tables)
    // The VMM puts the boot stub and the kernel there; then the guest runs the one, which jumps to the other.
    for address in [Configuration.memoryBase, kernelAddress] {
      try machine.write(0, to: address, count: 4)
      machine.run(.nop, at: GuestVirtualAddress(flat: address))
    }
    return machine
  }

  /// The address of the guest's kernel: 2 MiB above the start of memory, past the block of the boot stub.
  static let kernelAddress = Configuration.memoryBase + 2 << 20

  /// Adds a hook to `io_mem_abort`, after the hooks that are there. A hook that replaces the function takes the place of an earlier one
  /// that does so. A hook that is a ``HypercallHook``, too, gets the guest's hypercalls.
  public mutating func add(_ hook: some MMIOHook) {
    if let hook = hook as? any HypercallHook { hypercallHooks = [hook] }
    guard hook.replacesIOMemAbort else {
      hooks.append(hook)
      return
    }
    if let first = hooks.first, first.replacesIOMemAbort { hooks.removeFirst() }
    hooks.insert(hook, at: 0)
  }

  /// Puts a device on the MMIO bus (`kvm_io_bus_register_dev`).
  public mutating func register(_ device: any MMIODevice, at regions: [MMIORegion]) {
    bus.register(device, at: regions)
  }

  /// The stage-2 entry, valid or not, that decides over `ipa`.
  ///
  /// - Throws: `ERANGE` for an address beyond the IPA range.
  public func leaf(for ipa: IntermediatePhysicalAddress) throws(Stage2Error) -> Leaf {
    try kvm.stage2.leaf(for: ipa)
  }

  /// Makes a memory slot, changes it, or, with no size, deletes it: KVM_SET_USER_MEMORY_REGION.
  ///
  /// - Throws: `EINVAL` if the slot is not there, or if the change is not possible; `EEXIST` if the slot
  ///   would overlap another; `EFAULT` beyond the IPA range.
  public mutating func setMemoryRegion(_ slot: MemorySlot) throws(KernelError) {
    try kvm.setMemoryRegion(slot)
  }

  /// The pages of a slot that the guest has written since the last call: KVM_GET_DIRTY_LOG. Unless the VMM
  /// clears by itself (``DirtyLogProtection``), they count as clean from now on, and are write-protected.
  ///
  /// - Returns: A bit a page, 64 in an element.
  /// - Throws: `ENOENT` if the slot is not there or logs nothing.
  public mutating func dirtyLog(ofSlot id: Int) throws(KernelError) -> [UInt64] {
    try kvm.dirtyLog(ofSlot: id)
  }

  /// Makes pages of a slot count as clean, and write-protects the pages that were dirty: KVM_CLEAR_DIRTY_LOG.
  ///
  /// - Parameters:
  ///   - id: The VMM's number for the slot.
  ///   - firstPage: In the slot; a multiple of 64.
  ///   - pageCount: A multiple of 64, too, unless the slot ends there.
  /// - Throws: `ENOENT` if the slot is not there or logs nothing; `EINVAL` for other ranges.
  public mutating func clearDirtyLog(
    ofSlot id: Int, firstPage: Int, pageCount: Int
  ) throws(KernelError) {
    try kvm.clearDirtyLog(ofSlot: id, firstPage: firstPage, pageCount: pageCount)
  }

  /// Maps memory of the VMM's own and gives it to the guest as a slot. The VMM's children do not share it.
  ///
  /// - Throws: As ``setMemoryRegion(_:)``.
  public mutating func addPrivateMemory(
    slot id: Int, at ipa: IntermediatePhysicalAddress, size: UInt64, flags: MemorySlot.Flags = []
  ) throws(KernelError) {
    // Below all that is reserved around guest RAM, however much there is.
    let address = HostVirtualAddress(0x7000_0000_0000 + UInt64(id) << 32)
    try setMemoryRegion(
      MemorySlot(id: id, ipa: ipa, size: size, userspaceAddress: address, flags: flags))
    host.mapPrivately(at: address, size: size)
  }
}
