import Scenarios
import Stage2Sim

extension MachineView {
  /// The whole stage-2 table in the form of the debugfs file `stage2_page_tables`, see ``Stage2Sim/TableDump``.
  var dump: String {
    var dump = TableDump()
    forEachLeaf { dump.note($0, $1) }
    return dump.text
  }
}
