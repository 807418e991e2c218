import Stage2Sim

/// A system behind a node: a machine, the hook in its hypervisor and the driver in its guest.
///
/// A node, the inspection tree, `control`, `replay` and `explain` use an engine and know nothing below it. The engine of this
/// package is `ModelEngine`, whose machine is the model. An engine may run in another process: it answers when it can, by the
/// completion that each request brings.
public protocol Engine: AnyObject {
  /// The machine, as the first line of a scenario describes it.
  var machine: MachineDescription { get }

  /// The events of the machine, of its hook and of its driver, in their order.
  var events: EventStream { get }

  /// The machine as it is now.
  var view: any MachineView { get }

  /// Asked again and again in the middle of a step that takes long. The step ends early if it returns false.
  var mayGoOn: (() -> Bool)? { get set }

  /// Performs a step.
  ///
  /// - Parameters:
  ///   - step: The step.
  ///   - completion: Called once: with the lines of a recording below the step, or with the reason why the engine has not
  ///     performed it. The call may come before `perform` returns.
  func perform(
    _ step: Step, completion: @escaping (Result<[Observation], EngineFailure>) -> Void)

  /// Makes the machine anew, as it was when the engine was made.
  ///
  /// - Parameter completion: Called once, as for ``perform(_:completion:)``.
  func reset(completion: @escaping (Result<Void, EngineFailure>) -> Void)

  /// Waits until a completion was called. An engine that calls each completion at once is never asked to wait.
  func waitForAnswer()
}

extension Engine {
  /// Performs a step and waits for its observations.
  @discardableResult
  public func perform(_ step: Step) throws(EngineFailure) -> [Observation] {
    var result: Result<[Observation], EngineFailure>?
    perform(step) { result = $0 }
    while true {
      if let result { return try result.get() }
      waitForAnswer()
    }
  }

  /// Makes the machine anew and waits until it is there.
  public func reset() throws(EngineFailure) {
    var result: Result<Void, EngineFailure>?
    reset { result = $0 }
    while true {
      if let result { return try result.get() }
      waitForAnswer()
    }
  }
}

/// The reason why an engine has not done what was asked of it.
public struct EngineFailure: Error, Hashable, Sendable, CustomStringConvertible {
  /// The reason, with what can be done about it.
  public let description: String

  /// A failure with a reason.
  public init(_ description: String) { self.description = description }
}

/// A look at a machine. It changes nothing.
public protocol MachineView: AnyObject {
  /// The level at which stage-2 walks start.
  var startLevel: Int { get }

  /// The number of pages that hold stage-2 tables.
  var tablePages: Int { get }

  /// The entries on the way to the one that maps an address, from the start level down; empty for an address beyond the IPA
  /// range.
  func path(to address: IntermediatePhysicalAddress) -> [TableVisit]

  /// The entry, valid or not, that maps an address; nil for an address beyond the IPA range, and if the walk comes to no entry.
  func leaf(for address: IntermediatePhysicalAddress) -> Leaf?

  /// The references of the table at a level on the way to an address; nil if there is no such table.
  func references(for address: IntermediatePhysicalAddress, level: Int) -> TableReferences?

  /// Calls a function for each entry that points to no table, in the order of their addresses.
  func forEachLeaf(_ body: (_ address: IntermediatePhysicalAddress, Leaf) -> Void)

  /// The reason why the guest does not run any more; nil as long as it runs.
  var guestStop: GuestStopped? { get }
}
