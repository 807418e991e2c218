import CLabLink
import Glibc
import Scenarios
import Stage2Sim
import SystemPackage

/// Calls that this process itself has the agent in the guest make, one after the other. Each function waits for its answer.
extension KernelEngine {
  /// A file that the agent has opened.
  public struct GuestDescriptor {
    fileprivate let handle: UInt32
  }

  /// The longest time of a call in seconds. The host ends a guest that hangs before this time is over.
  private static let callLimit: UInt64 = 30

  /// Opens the device for reading and writing.
  public func openDevice() throws(Errno) -> GuestDescriptor {
    var call = call(LAB_OPEN, nil)
    call.flags = UInt32(bitPattern: O_RDWR)
    return GuestDescriptor(
      handle: UInt32(truncatingIfNeeded: try make(call, Array(device.utf8)).result))
  }

  public func close(_ file: GuestDescriptor) {
    _ = try? make(operation(LAB_RELEASE, file))
  }

  /// - Parameter hasBadBuffer: Whether the buffer is at an address without memory.
  public func read(
    _ count: Int, from file: GuestDescriptor, hasBadBuffer: Bool = false
  ) throws(Errno) -> [UInt8] {
    var call = operation(LAB_READ, file)
    call.capacity = UInt32(min(count, Int(LAB_MOST_DATA)))
    call.bad_buffer = hasBadBuffer ? 1 : 0
    return Array(try make(call).data)
  }

  /// - Parameter hasBadBuffer: Whether the buffer is at an address without memory.
  /// - Returns: The result of write(2).
  public func write(
    _ bytes: [UInt8], to file: GuestDescriptor, hasBadBuffer: Bool = false
  ) throws(Errno) -> Int {
    var call = operation(LAB_WRITE, file)
    call.bad_buffer = hasBadBuffer ? 1 : 0
    return Int(try make(call, bytes).result)
  }

  /// Stores a value to a register that is no register of the module's driver, by one instruction of the agent.
  ///
  /// - Parameter size: The bytes of the access: 1, 2, 4 or 8.
  public func store(
    _ value: UInt64, size: Int, at address: IntermediatePhysicalAddress
  ) throws(Errno) {
    var call = call(LAB_ACCESS, nil)
    call.command = LAB_STORE_REGISTER.rawValue
    call.argument = address.rawValue
    _ = try make(call, withUnsafeBytes(of: value.littleEndian) { Array($0.prefix(size)) })
  }

  /// Loads the value of a register by one instruction of the agent.
  public func load(
    size: Int, at address: IntermediatePhysicalAddress
  ) throws(Errno) -> UInt64 {
    var call = call(LAB_ACCESS, nil)
    call.command = LAB_LOAD_REGISTER.rawValue
    call.argument = address.rawValue
    call.capacity = UInt32(size)
    return try make(call).data.reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }

  /// A module was not unloaded, or not loaded.
  public struct ModuleFailure: Error, CustomStringConvertible {
    public let description: String
  }

  /// Closes all files and unloads the modules.
  ///
  /// - Returns: The things that the modules have left behind, one in a string: `device NAME`, `mapping ADDRESS`, `memory COUNT CACHE`.
  public func unloadModules() throws(ModuleFailure) -> [String] {
    try changeModules(LAB_UNLOAD).split(separator: "\n").map { String($0).printable }
  }

  /// Loads the modules that ``unloadModules()`` has unloaded.
  public func loadModules() throws(ModuleFailure) { _ = try changeModules(LAB_LOAD) }

  private func changeModules(_ operation: lab_operation) throws(ModuleFailure) -> String {
    guard isRunning else { throw ModuleFailure(description: stopReason) }
    guard let answer = request(operation) else {
      throw ModuleFailure(description: "the guest does not answer")
    }
    guard let error = answer.error else { return answer.text }
    guard isRunning else { throw ModuleFailure(description: stopReason) }
    throw ModuleFailure(description: answer.text.isEmpty ? "\(error)" : answer.text.printable)
  }

  // MARK: - Requests

  private func request(_ operation: lab_operation) -> MonitorAnswer? {
    request(LAB_CALL, payload(call(operation, nil)), limit: Self.callLimit)
  }

  private func operation(_ operation: lab_operation, _ file: GuestDescriptor) -> lab_call {
    var call = call(operation, nil)
    call.handle = file.handle
    return call
  }

  private func make(_ call: lab_call, _ bytes: [UInt8] = []) throws(Errno) -> MonitorAnswer {
    guard isRunning else { throw .ioError }
    guard let answer = request(LAB_CALL, payload(call, bytes), limit: Self.callLimit) else {
      throw .timedOut
    }
    takePath(answer)
    // If the guest has stopped, the frame that tells this follows the answer.
    if answer.error == .ioError { takeFrames(waiting: 200) }
    if let error = answer.error { throw error }
    return answer
  }
}
