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
  /// The device stands in front of the bus, where a hook in `io_mem_abort` is: nothing that the kernel does to reach its
  /// bus is done for it, such as to pass the tracepoint `kvm_mmio`. No device is one unless it says so.
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

  /// `kvm_io_bus_cmp`, where it finds no difference.
  @inline(__always)
  func contains(_ access: MMIOAccess) -> Bool {
    guard length > 0 else { return access.address == address }
    return access.address >= address
      && access.address + UInt64(access.length) <= address + length
  }
}

/// The MMIO bus of a VM: `struct kvm_io_bus`. It knows regions, and nothing of the devices behind them.
struct IOBus {
  private var regions: [(region: MMIORegion, device: Int, isHook: Bool)] = []
  private var devices: [any MMIODevice] = []

  /// `kvm_io_bus_register_dev`: regions are kept by address, as the kernel keeps them.
  mutating func register(_ device: any MMIODevice, at new: [MMIORegion]) {
    regions += new.map { ($0, devices.count, type(of: device).isHook) }
    regions.sort { $0.region.address < $1.region.address }
    devices.append(device)
  }

  /// The first region, from the place `first` on, that the access lies in (`kvm_io_bus_get_first_dev`).
  @inline(__always)
  func region(for access: MMIOAccess, from first: Int = 0) -> Int? {
    for index in first..<regions.count where regions[index].region.contains(access) { return index }
    return nil
  }

  /// Whether a hook takes what lies in a region, and not the bus.
  func isHook(region: Int) -> Bool { regions[region].isHook }

  /// `kvm_io_bus_read` and `kvm_io_bus_write`: the first device that takes the access.
  ///
  /// - Parameter region: The first that the access lies in.
  @inline(__always)
  mutating func access(
    _ access: MMIOAccess, in region: Int, from vcpu: inout VCPU, stage2: inout Stage2PageTable
  ) throws(KernelError) -> MMIOResponse {
    var next: Int? = region
    while let index = next {
      let response = try devices[regions[index].device].access(
        access, from: &vcpu, stage2: &stage2)
      guard case .declined = response else { return response }
      next = self.region(for: access, from: index + 1)
    }
    return .declined
  }
}
