/// Why the guest does not run any more.
public struct GuestStopped: Error, Hashable, Sendable {
  /// What its last run ended with.
  public let result: RunResult
  /// The last abort that it took; nil where it has stopped by something else.
  public let abort: FaultInfo?
}

/// The calls of the guest's kernel that a driver of a memory-mapped device makes.
extension VirtualMachine {
  /// Maps device registers for the guest's kernel: `ioremap`.
  ///
  /// - Parameters:
  ///   - ipa: The guest physical address of the first byte.
  ///   - size: In bytes.
  /// - Returns: The virtual address of the first byte; nil where Linux returns NULL: for no bytes, for addresses
  ///   that do not exist, for RAM.
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
  @inline(__always)
  public func printk(_ format: StaticString, _ value: @autoclosure () -> Int = 0) {
    kvm.stage2.events.emit(.log(LogMessage(.driver, format, value())))
  }

  /// Reports that the guest does not run any more, so that a driver cannot complete what it does.
  public func reportGuestStopped() { kvm.stage2.events.emit(.guestStopped) }

  /// Reads one byte of a device: `readb`, an LDRB to w0.
  ///
  /// - Throws: Where the guest could not go on after the load.
  public mutating func readb(_ address: GuestVirtualAddress) throws(GuestStopped) -> UInt8 {
    try runDriver(.load(.byte, to: 0), at: address)
    return UInt8(truncatingIfNeeded: vcpu[0])
  }

  /// Writes one byte to a device: `writeb`, an STRB from w0.
  ///
  /// - Throws: Where the guest could not go on after the store.
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
    case .retired, .notModelled: nil
    }
  }
}
