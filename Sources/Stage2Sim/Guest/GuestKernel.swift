/// The reason why the guest does not run any more.
public struct GuestStopped: Error, Hashable, Sendable {
  /// The result of the guest's last run.
  public let result: RunResult
  /// The last abort that the guest took; nil if another event has stopped the guest.
  public let abort: FaultInfo?

  /// A reason. An engine has it from its driver, unless the driver's own kernel has crashed.
  public init(result: RunResult, abort: FaultInfo?) {
    self.result = result
    self.abort = abort
  }
}

/// The calls of the guest's kernel that a driver of a memory-mapped device makes.
extension VirtualMachine {
  /// Maps device registers for the guest's kernel: `ioremap`.
  ///
  /// - Parameters:
  ///   - ipa: The guest physical address of the first byte.
  ///   - size: In bytes.
  /// - Returns: The virtual address of the first byte; nil if Linux returns NULL: for no bytes, for addresses
  ///   that do not exist, for RAM, and for more than the vmalloc area has room for.
  public mutating func ioremap(
    _ ipa: IntermediatePhysicalAddress, size: UInt64
  ) -> GuestVirtualAddress? {
    let last = ipa &+ (size &- 1)
    guard size > 0, last >= ipa, last.fits(bits: 48), kvm.slot(for: ipa) == nil,
      kvm.slot(for: last) == nil
    else { return nil }
    return stage1.map(ipa: ipa, size: size)
  }

  /// Logs a line into the log of the guest's kernel: `printk`.
  ///
  /// - Parameters:
  ///   - format: The text. The first `%d` in it stands for the number.
  ///   - value: The number.
  // The functions below are mutating: Swift would copy the machine for a call of a function that is not.
  @inline(__always)
  public mutating func printk(_ format: StaticString, _ value: @autoclosure () -> Int = 0) {
    kvm.stage2.events.emit(.log(LogMessage(.driver, format, value())))
  }

  /// Logs a line into the log of the guest's kernel, with a text that is made as the program runs.
  public mutating func printk(text: String) { kvm.stage2.events.log(text, .driver) }

  /// Logs a line into the log of the host's kernel: ``KVM/printk(text:layer:)``.
  public mutating func printkOfHost(text: String, layer: EventLayer = .hook) {
    kvm.printk(text: text, layer: layer)
  }

  /// Reports that the guest does not run any more, so that a driver cannot complete its operation.
  public mutating func reportGuestStopped() { kvm.stage2.events.emit(.guestStopped) }

  /// Reads one byte of a device: `readb`, an LDRB to w0.
  ///
  /// - Throws: The reason, if the guest could not go on after the load.
  public mutating func readb(_ address: GuestVirtualAddress) throws(GuestStopped) -> UInt8 {
    try runDriver(.load(.byte, to: 0), at: address)
    return UInt8(truncatingIfNeeded: vcpu[0])
  }

  /// Reads from a device: `readb`, `readw`, `readl` or `readq`, a load to x0.
  ///
  /// - Parameters:
  ///   - size: The size of the load. No load has the size of a quadword.
  ///   - address: The address of the register.
  /// - Throws: The reason, if the guest could not go on after the load.
  public mutating func read(
    _ size: LoadStore.Size, from address: GuestVirtualAddress
  ) throws(GuestStopped) -> UInt64 {
    try runDriver(.load(size, to: 0), at: address)
    return vcpu[0]
  }

  /// Writes to a device: `writeb`, `writew`, `writel` or `writeq`, a store from x0.
  ///
  /// - Parameters:
  ///   - value: The value. Its low bytes are written.
  ///   - size: The size of the store.
  ///   - address: The address of the register.
  /// - Throws: The reason, if the guest could not go on after the store.
  public mutating func write(
    _ value: UInt64, _ size: LoadStore.Size, to address: GuestVirtualAddress
  ) throws(GuestStopped) {
    vcpu[0] = value
    try runDriver(.store(size, from: 0), at: address)
  }

  /// Unmaps device registers: `iounmap`.
  ///
  /// - Parameter address: An address in the first page that ``ioremap(_:size:)`` has mapped.
  /// - Returns: False if nothing is mapped there.
  @discardableResult
  public mutating func iounmap(_ address: GuestVirtualAddress) -> Bool { stage1.unmap(address) }

  /// Whether an address is one that ``ioremap(_:size:)`` has mapped.
  public func isMapped(_ address: GuestVirtualAddress) -> Bool { stage1.isMapped(address) }

  /// Writes one byte to a device: `writeb`, an STRB from w0.
  ///
  /// - Throws: The reason, if the guest could not go on after the store.
  public mutating func writeb(
    _ value: UInt8, to address: GuestVirtualAddress
  ) throws(GuestStopped) {
    vcpu[0] = UInt64(value)
    try runDriver(.store(.byte, from: 0), at: address)
  }

  @inline(__always)
  private mutating func runDriver(
    _ access: LoadStore, at address: GuestVirtualAddress
  ) throws(GuestStopped) {
    let result = run(
      .access(access, address: address), at: GuestVirtualAddress(flat: Self.kernelAddress))
    guard case .retired = result else {
      throw GuestStopped(result: result, abort: lastAbort(of: result))
    }
  }

  private func lastAbort(of result: RunResult) -> FaultInfo? {
    switch result {
    // KVM may have injected the exception for an abort.
    case .mmio, .failed, .livelock, .guestException: vcpu.fault
    case .retired, .notModelled, .crashed, .lost: nil
    }
  }
}
