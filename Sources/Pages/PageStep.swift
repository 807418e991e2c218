import Inspection

/// A step of a machine as the page shows it.
struct PageStep {
  /// An event inside of the step.
  struct Event {
    /// The number of functions and walks that the event is inside of.
    let depth: Int
    /// The kind of the event.
    let word: String
    let text: String
  }

  /// The registers of an abort.
  struct Abort {
    let syndrome, far, hpfar: DecodedWord
  }

  /// The entries on the way to an address.
  struct Walk {
    let address: DecodedWord
    let entries: [(level: Int, table: String, index: Int, entry: DecodedWord)]
  }

  /// A write of an entry.
  struct Write {
    /// The level and the address of the entry.
    let place: String
    let old, new: DecodedWord
  }

  var text: String
  /// The number of the line in the scenario; 0 if there is none.
  var line = 0
  var events: [Event] = []
  var aborts: [Abort] = []
  /// The walks before the step and after it: to the page whose entry has the byte, and to the address that the step names.
  var walks: [(before: Walk, after: Walk)] = []
  var writes: [Write] = []
  /// The observations, as a recording has them.
  var results: [String] = []
  var invalidations: [String] = []
  var warnings: [String] = []
  var guestLog: [String] = []
  var hostLog: [String] = []
}
