/// One access of the guest to an address outside its memory, with the values that `io_mem_abort` has.
public struct MMIOAccess: Hashable, Sendable {
  /// `is_write`: the guest stores.
  public let isWrite: Bool
  /// `fault_ipa`: the guest physical address.
  public let address: IntermediatePhysicalAddress
  /// `len`: 1, 2, 4 or 8 bytes.
  public let length: Int
  /// `data`: the value that a store writes, zero-extended; 0 for a load.
  public let data: UInt64
  /// `rt`: the general-purpose register of the instruction, 31 for the zero register.
  public let register: Int
}

/// Code of a user in `io_mem_abort`. KVM calls it before it looks for a device.
///
/// The hook has the arguments of kernel code in this place, and its duties: it sets the register of a load
/// (`vcpu_set_reg`), and moves the program counter over the instruction (`kvm_incr_pc`, ``VCPU/incrementPC()``). A guest whose
/// hook forgets to move the program counter takes the same abort again.
public protocol MMIOHook {
  /// Handles an access, or leaves it to KVM. Hooks are asked in the order in which they were added.
  ///
  /// - Parameters:
  ///   - access: The access: `fault_ipa`, `is_write`, `len`, `rt` and `data`.
  ///   - vcpu: The vCPU that makes the access.
  ///   - kvm: The VM, `vcpu->kvm`, with its stage-2 table.
  /// - Throws: The error that KVM_RUN fails with. The guest stays at the instruction.
  mutating func ioMemAbort(
    _ access: MMIOAccess, vcpu: inout VCPU, kvm: inout KVM
  ) throws(KernelError) -> MMIOHookResult

  /// Whether the hook replaces `io_mem_abort` as a whole. KVM then asks it before all others, and before it looks whether the syndrome is
  /// valid (ESR_EL2.ISV). Without a valid syndrome, only the address of the access means something, and the rest of it is 0. The
  /// default is false. A machine asks once, when the hook is added.
  var replacesIOMemAbort: Bool { get }
}

extension MMIOHook {
  public var replacesIOMemAbort: Bool { false }
}

/// The result of a hook.
public enum MMIOHookResult: Hashable, Sendable {
  /// `io_mem_abort` goes on with the next hook, and then as it does without one.
  case notHandled
  /// `io_mem_abort` returns 1: the guest goes on.
  case handled
  /// `io_mem_abort` returns 0: KVM_RUN returns with KVM_EXIT_MMIO, and the access that the hook has given to ``VCPU/exit(with:)``.
  case exit
  /// The host's kernel crashes in the hook. The guest does not run any more.
  case crash
}

/// The response of a device on the bus to an access.
public enum MMIOResponse: Hashable, Sendable {
  /// A read gives this, cut to the size of the access; the register gets zeros above, also of a load that extends the
  /// sign.
  case value(UInt64)
  /// The access is over. A read leaves the register as it is, or as the device has set it.
  case done
  /// The access is for another device: KVM asks the next one on the bus, and at last the VMM (the kernel's `-EOPNOTSUPP`).
  case declined
}

/// A device in the hypervisor: `struct kvm_io_device`.
public protocol MMIODevice {
  /// Answers an access that falls into one of the device's regions.
  ///
  /// - Parameters:
  ///   - access: The access.
  ///   - vcpu: The vCPU that made it, for a device that sets registers by itself.
  ///   - kvm: The VM, with its stage-2 table.
  /// - Throws: The error that KVM_RUN fails with. The guest stays at the instruction.
  mutating func access(
    _ access: MMIOAccess, from vcpu: inout VCPU, kvm: inout KVM
  ) throws(KernelError) -> MMIOResponse
}

/// A range of guest physical addresses that a device answers for: `struct kvm_io_range`.
public struct MMIORegion: Hashable, Sendable {
  /// The first guest physical address.
  public let address: IntermediatePhysicalAddress
  /// The size in bytes. An access has to lie inside the region. A length of 0 takes every access that starts at ``address``, however
  /// long it is, as in the kernel.
  public let length: UInt64

  /// A region of `length` bytes from `address`.
  public init(address: IntermediatePhysicalAddress, length: UInt64) {
    self.address = address
    self.length = length
  }

  /// `kvm_io_bus_cmp`: negative, 0 or positive. An access that lies in `other` has 0. Sums wrap, as in C.
  @inline(__always)
  func compare(with other: MMIORegion) -> Int {
    guard address >= other.address else { return -1 }
    let isBeyond =
      other.length == 0
      ? address > other.address : address &+ length > other.address &+ other.length
    return isBeyond ? 1 : 0
  }
}

extension MMIOAccess {
  @inline(__always)
  fileprivate var region: MMIORegion { MMIORegion(address: address, length: UInt64(length)) }
}

/// The MMIO bus of a VM: `struct kvm_io_bus`.
struct IOBus {
  private typealias Place = (region: MMIORegion, device: Int)

  private var ranges: [Place] = []
  private var devices: [any MMIODevice] = []

  /// `kvm_io_bus_register_dev`
  mutating func register(_ device: any MMIODevice, at regions: [MMIORegion]) {
    for region in regions {
      let next = ranges.firstIndex { $0.region.compare(with: region) > 0 }
      ranges.insert((region, devices.count), at: next ?? ranges.endIndex)
    }
    devices.append(device)
  }

  /// `kvm_io_bus_read` and `kvm_io_bus_write`: the response of the first device that does not decline the access.
  mutating func access(
    _ access: MMIOAccess, from vcpu: inout VCPU, kvm: inout KVM
  ) throws(KernelError) -> MMIOResponse {
    guard var index = firstRange(for: access.region) else { return .declined }
    while index < ranges.count, access.region.compare(with: ranges[index].region) == 0 {
      let response = try devices[ranges[index].device].access(
        access, from: &vcpu, kvm: &kvm)
      guard case .declined = response else { return response }
      index += 1
    }
    return .declined
  }

  /// `kvm_io_bus_get_first_dev`. Regions that overlap are in no order that its search relies on: as in the kernel, the search
  /// may miss one.
  private func firstRange(for access: MMIORegion) -> Int? {
    // `bsearch`
    var first = 0
    var count = ranges.count
    while count > 0 {
      var index = first + count / 2
      let order = access.compare(with: ranges[index].region)
      if order == 0 {
        while index > 0, access.compare(with: ranges[index - 1].region) == 0 { index -= 1 }
        return index
      }
      if order > 0 {
        first = index + 1
        count -= 1
      }
      count /= 2
    }
    return nil
  }
}
