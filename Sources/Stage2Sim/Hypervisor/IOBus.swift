/// One access of the guest to an address outside its memory.
public struct MMIOAccess: Hashable, Sendable {
  /// The guest stores.
  public let isWrite: Bool
  /// Guest physical.
  public let address: UInt64
  /// In bytes: 1, 2, 4 or 8.
  public let length: Int
  /// What a write stores, zero-extended.
  public let data: UInt64
  /// The general-purpose register of the instruction, 31 for the zero register.
  public let register: Int
}

/// What a device on the bus made of an access.
public enum MMIOResponse: Hashable, Sendable {
  /// A read gives this, cut to the size of the access; the register gets zeros above, also of a load that extends the
  /// sign.
  case value(UInt64)
  /// The access is over. A read leaves the register as it is, or as the device has set it.
  case done
  /// Not the device's: the next one on the bus is asked, and at last the VMM (the kernel's `-EOPNOTSUPP`).
  case declined
}

/// A device in the hypervisor: `struct kvm_io_device`.
public protocol MMIODevice {
  /// Whether the device stands in front of the bus, where a hook in `io_mem_abort` is. False if not said.
  ///
  /// Hooks are asked before any device on the bus, in the order of their registration. Nothing that the kernel does to
  /// reach its bus is done for them, such as to pass the tracepoint `kvm_mmio`.
  static var isHook: Bool { get }

  /// Answers an access that falls into one of the device's regions.
  ///
  /// - Parameters:
  ///   - access: What the guest does.
  ///   - vcpu: The vCPU that made it, for a device that sets registers by itself.
  ///   - stage2: The VM's stage-2 table. Its observer hears what the device logs.
  /// - Throws: What KVM_RUN fails with; the guest stays at the instruction.
  mutating func access(
    _ access: MMIOAccess, from vcpu: inout VCPU, stage2: inout Stage2PageTable
  ) throws(KernelError) -> MMIOResponse
}

extension MMIODevice {
  public static var isHook: Bool { false }
}

/// A range of guest physical addresses that a device answers for: `struct kvm_io_range`.
public struct MMIORegion: Hashable, Sendable {
  /// The first guest physical address.
  public let address: UInt64
  /// In bytes. 0 takes every access that starts exactly at ``address``, however long; otherwise an access has to
  /// lie inside the region.
  public let length: UInt64

  /// A region of `length` bytes from `address`.
  public init(address: UInt64, length: UInt64) {
    self.address = address
    self.length = length
  }

  /// `kvm_io_bus_cmp`: negative, 0 or positive. An access has 0 where it lies in `other`. Sums wrap, as in C.
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

/// The MMIO bus of a VM, `struct kvm_io_bus`, and the hooks in front of it. It knows regions, and nothing of the devices behind
/// them.
struct IOBus {
  private typealias Place = (region: MMIORegion, device: Int)

  private var hooks: [Place] = []
  private var ranges: [Place] = []
  private var devices: [any MMIODevice] = []

  /// Adds a hook after all others, or a device to the bus (`kvm_io_bus_register_dev`).
  mutating func register(_ device: any MMIODevice, at regions: [MMIORegion]) {
    for region in regions {
      let place = (region, devices.count)
      if type(of: device).isHook {
        hooks.append(place)
      } else {
        let next = ranges.firstIndex { $0.region.compare(with: region) > 0 }
        ranges.insert(place, at: next ?? ranges.endIndex)
      }
    }
    devices.append(device)
  }

  /// The answer of the first hook that does not decline the access. Each hook is asked once, whatever its regions.
  @inline(__always)
  mutating func callHooks(
    _ access: MMIOAccess, from vcpu: inout VCPU, stage2: inout Stage2PageTable
  ) throws(KernelError) -> MMIOResponse {
    var asked = -1
    for index in hooks.indices where access.region.compare(with: hooks[index].region) == 0 {
      let device = hooks[index].device
      guard device != asked else { continue }
      asked = device
      let response = try devices[device].access(access, from: &vcpu, stage2: &stage2)
      guard case .declined = response else { return response }
    }
    return .declined
  }

  /// `kvm_io_bus_read` and `kvm_io_bus_write`: what the first device on the bus says that does not decline the access.
  mutating func access(
    _ access: MMIOAccess, from vcpu: inout VCPU, stage2: inout Stage2PageTable
  ) throws(KernelError) -> MMIOResponse {
    guard var index = firstRange(for: access.region) else { return .declined }
    while index < ranges.count, access.region.compare(with: ranges[index].region) == 0 {
      let response = try devices[ranges[index].device].access(
        access, from: &vcpu, stage2: &stage2)
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
