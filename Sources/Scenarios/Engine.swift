import Stage2Sim

/// A system behind a node: a machine, the hook in its hypervisor and the driver in its guest.
///
/// A node, the inspection tree, `control`, `replay` and `explain` use an engine and know nothing below it. The engine of this
/// package is `ModelEngine`, whose machine is the model. An engine may run in another process, and may answer later: each request
/// brings a completion.
public protocol Engine: AnyObject {
  /// The machine, as the first line of a scenario describes it.
  var machine: MachineDescription { get }

  /// The events of the machine, of its hook and of its driver, in their order.
  var events: EventStream { get }

  /// The machine. Each call of a function of the view tells the present state, whatever has happened since.
  var view: any MachineView { get }

  /// The registers of a hook that hides bytes; nil, the default, if the engine has no such hook.
  var hidingRegisters: HidingRegisters? { get }

  /// A function that the engine calls again and again during a long step. The step ends early if the function returns false.
  var mayGoOn: (() -> Bool)? { get set }

  /// Performs a step.
  ///
  /// - Parameters:
  ///   - step: The step.
  ///   - completion: A function that is called once, with the observations of the step, or with the reason why the engine has not
  ///     performed the step. The call may come before `perform` returns.
  func perform(
    _ step: Step, completion: @escaping (Result<[Observation], EngineFailure>) -> Void)

  /// Replaces the machine by a new one, as it was when the engine was made.
  ///
  /// - Parameter completion: A function that is called once, as for ``perform(_:completion:)``.
  func reset(completion: @escaping (Result<Void, EngineFailure>) -> Void)

  /// Waits until a completion was called. An engine that calls each completion at once is never asked to wait.
  func waitForAnswer()
}

extension Engine {
  public var hidingRegisters: HidingRegisters? { nil }

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

  /// Replaces the machine by a new one and waits for it.
  public func reset() throws(EngineFailure) {
    var result: Result<Void, EngineFailure>?
    reset { result = $0 }
    while true {
      if let result { return try result.get() }
      waitForAnswer()
    }
  }
}

/// The registers of a hook that hides a byte in bits [58:51] of the stage-2 entry of the first page of guest RAM.
public struct HidingRegisters: Hashable, Sendable {
  /// The guest physical address of the register that hides a byte: STRB writes the byte.
  public let hide: IntermediatePhysicalAddress
  /// The guest physical address of the register that gives the hidden byte: LDRB reads the byte.
  public let seek: IntermediatePhysicalAddress

  /// Registers at two addresses.
  public init(hide: IntermediatePhysicalAddress, seek: IntermediatePhysicalAddress) {
    self.hide = hide
    self.seek = seek
  }
}

/// The reason why an engine has not answered a request.
public struct EngineFailure: Error, Hashable, Sendable, CustomStringConvertible {
  /// The reason, and if possible a remedy.
  public let description: String

  /// A failure with a reason.
  public init(_ description: String) { self.description = description }

  /// The first line of the description.
  public var reason: String { lines.first ?? "" }

  /// The other lines of the description: the state of the guest and the last lines of the kernels' logs.
  public var details: [String] { Array(lines.dropFirst()) }

  private var lines: [String] { description.split(separator: "\n").map(String.init) }
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

  /// Calls a function for each entry that does not point to a table, in the order of the addresses.
  func forEachLeaf(_ body: (_ address: IntermediatePhysicalAddress, Leaf) -> Void)

  /// The reason why the guest does not run any more; nil as long as it runs.
  var guestStop: GuestStopped? { get }
}
