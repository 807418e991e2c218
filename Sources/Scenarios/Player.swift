import Stage2Sim

/// Plays scenarios: the machine of a scenario's first line, and its ``Monitor``.
///
/// It is a value: a copy is a snapshot of the machine.
public struct Player {
  private(set) var machine: VirtualMachine
  private var monitor: Monitor

  /// - Throws: Where there is no such machine.
  public init(_ description: MachineDescription) throws(UnplayableMachine) {
    do throws(KernelError) {
      machine = try VirtualMachine(
        .init(
          cpu: description.cpu, granule: description.granule, ipaBits: description.ipaBits,
          backing: description.backing, memorySize: description.memory,
          dirtyLogProtection: description.dirtyLog))
      monitor = try Monitor(of: &machine, code: description.code)
    } catch {
      throw UnplayableMachine(machine: description, error: error)
    }
    machine.register(HideSeek(), at: HideSeek.regions)
  }

  /// What happened in the hypervisor during the last step.
  var events: [MachineEvent] { monitor.events }

  /// Does the step.
  ///
  /// - Returns: The lines of a recording below it, without their two spaces.
  @discardableResult
  public mutating func play(_ step: Step) -> [String] { monitor.play(step, on: &machine) }
}

/// There is no such machine.
public struct UnplayableMachine: Error, Hashable, Sendable, CustomStringConvertible {
  let machine: MachineDescription
  let error: KernelError

  public var description: String {
    "there is no such machine (\(error)): \(machine)"
  }
}
