/// A machine as KVM on Linux 6.1 arm64 makes it for QEMU's `virt` board: the host's memory, the VM with its stage-2
/// table and its MMIO bus, one vCPU.
///
/// It is a value: a copy is a snapshot. It does no I/O, keeps no time and starts no thread; the same calls on the same
/// machine always end in the same state.
public struct VirtualMachine {
  public let configuration: Configuration
  /// `kvm->arch.mmu.pgt`
  public internal(set) var stage2: Stage2PageTable
  public package(set) var slots: [MemorySlot]
  public internal(set) var vcpu = VCPU()
  /// Hears of what the hypervisor does. A copy of the machine has the same observer.
  public var observer: (any MachineObserver)? {
    get { stage2.observer }
    set { stage2.observer = newValue }
  }
  var host: HostMemory
  var bus = IOBus()
  var stage1 = Stage1()

  /// What a machine is made of.
  public struct Configuration: Hashable, Sendable {
    public var cpu: CPUModel
    public var backing: Backing
    /// Guest RAM in bytes.
    public var memorySize: UInt64

    /// Where guest RAM begins on the `virt` board.
    public static let memoryBase: UInt64 = 0x4000_0000
    /// KVM's default size of the intermediate physical address.
    public static let ipaBits = 40
    /// What ``memorySize`` may be, in whole pages: the boot stub and the kernel have to fit in, and the IPA range
    /// ends where it ends.
    public static let memorySizes: ClosedRange<UInt64> = 4 << 20...1 << 40 - memoryBase

    public init(
      cpu: CPUModel = .cortexA76, backing: Backing = .huge, memorySize: UInt64 = 256 << 20
    ) {
      self.cpu = cpu
      self.backing = backing
      self.memorySize = memorySize
    }
  }

  /// A machine whose guest has run nothing yet: no entry in its stage-2 table, no device on its bus.
  ///
  /// - Throws: `EINVAL` where the memory size is not of ``Configuration/memorySizes`` or not whole pages.
  public init(_ configuration: Configuration = Configuration()) throws(KernelError) {
    guard Configuration.memorySizes.contains(configuration.memorySize),
      configuration.memorySize % HostMemory.pageSize == 0
    else { throw .invalidArgument }
    self.configuration = configuration
    stage2 = Stage2PageTable(
      ipaBits: Configuration.ipaBits, hasFWB: configuration.cpu.hasFWB)
    host = HostMemory(backing: configuration.backing)
    slots = [
      MemorySlot(
        ipa: Configuration.memoryBase, size: configuration.memorySize,
        userspaceAddress: 0x7f00_0000_0000)
    ]
  }

  /// The machine of the original system when the guest loads the module: HIDE and SEEK on the bus, the guest's
  /// kernel booted, the entry of IPA 0x40000000 valid and executable, since the board's boot stub ran there.
  ///
  /// - Throws: As ``init(_:)``.
  public static func booted(
    _ configuration: Configuration = Configuration()
  ) throws(KernelError) -> VirtualMachine {
    var machine = try VirtualMachine(configuration)
    machine.register(HideSeek(), at: HideSeek.regions)
    // The VMM puts the boot stub and the kernel there; then the guest runs the one, which jumps to the other.
    for address in [Configuration.memoryBase, kernelAddress] {
      machine.vmmStore(0, to: address, count: 4)
      machine.run(.nop, at: address)
    }
    return machine
  }

  /// Where the guest's kernel runs: 2 MiB above the start of memory, past the block of the boot stub.
  static let kernelAddress = Configuration.memoryBase + 2 << 20

  /// Puts a device on the MMIO bus (`kvm_io_bus_register_dev`).
  public mutating func register(_ device: any MMIODevice, at regions: [MMIORegion]) {
    bus.register(device, at: regions)
  }

  /// The slot that holds `address` (`gfn_to_memslot`).
  func slot(for address: UInt64) -> MemorySlot? { slots.first { $0.contains(address) } }

  /// A store by the VMM into the guest's memory: no vCPU and no stage 2 is involved.
  ///
  /// - Parameter count: 1 to 8 bytes of `value`, little-endian, inside one page of a slot.
  public mutating func vmmStore(_ value: UInt64, to ipa: UInt64, count: Int) {
    guard let slot = slot(for: ipa) else { return }
    let virtual = slot.userspaceAddress(of: ipa)
    let touch = host.touch(virtual, isWrite: true)
    if touch.didCopyOnWrite { notifyCopyOnWrite(touch.mapping, ipa: ipa) }
    let physical = touch.mapping.frame + virtual & (touch.mapping.size - 1)
    host.store(value, to: physical, count: count)
  }
}

extension VirtualMachine {
  /// The stage-2 entry, valid or not, that decides over `ipa`.
  ///
  /// - Throws: `ERANGE` for an address beyond the IPA range.
  public func leaf(for ipa: UInt64) throws(Stage2Error) -> Leaf { try stage2.leaf(for: ipa) }
}
